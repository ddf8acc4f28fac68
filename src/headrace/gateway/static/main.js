// Which page this is: the list of apps at the root, an app's page below it. A link pasted over another begins anew.
addEventListener("hashchange", () => location.reload());
import(location.pathname === "/" ? "./index.js" : "./page.js");
