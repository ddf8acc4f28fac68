// The colours of choice, before anything is painted; else the system's.
{
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const kept = localStorage.getItem("headrace.theme");
  if (kept) root.dataset.theme = kept;

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => button.setAttribute("aria-pressed", isDark());
    tell();
    system.addEventListener("change", tell);
    button.addEventListener("click", () => {
      localStorage.setItem("headrace.theme", root.dataset.theme = isDark() ? "light" : "dark");
      tell();
    });
  });
}
