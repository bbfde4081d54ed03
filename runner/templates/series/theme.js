/* In the head: a stored theme is set before anything is painted, so that no page flashes. */
(function () {
  "use strict";
  try {
    var chosen = localStorage.getItem("breakhis-theme");
    if (chosen === "light" || chosen === "dark") { document.documentElement.setAttribute("data-theme", chosen); }
  } catch (e) { /* private */ }
})();
