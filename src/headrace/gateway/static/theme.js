// The colours of choice, before anything is painted; else the system's.
{
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.style.colorScheme || (system.matches ? "dark" : "light")) === "dark";
  root.style.colorScheme = localStorage.getItem("headrace.theme");

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => button.setAttribute("aria-pressed", isDark());
    tell();
    system.addEventListener("change", tell);
    button.addEventListener("click", () => {
      localStorage.setItem("headrace.theme", root.style.colorScheme = isDark() ? "light" : "dark");
      tell();
    });
  });
}
