(function () {
  "use strict";
  var root = document.documentElement;
  var store = {
    get: function (key) { try { return localStorage.getItem(key); } catch (e) { return null; } },
    set: function (key, value) { try { localStorage.setItem(key, value); } catch (e) { /* private */ } }
  };

  var theme = document.getElementById("theme");
  var themes = ["auto", "light", "dark"];
  function setTheme(name) {
    if (name === "auto") { root.removeAttribute("data-theme"); } else { root.setAttribute("data-theme", name); }
    theme.querySelector("span").textContent = name;
  }
  var chosen = store.get("breakhis-theme");
  setTheme(themes.indexOf(chosen) > 0 ? chosen : "auto");
  theme.hidden = false;
  theme.addEventListener("click", function () {
    var now = theme.querySelector("span").textContent;
    var next = themes[(themes.indexOf(now) + 1) % themes.length];
    store.set("breakhis-theme", next);
    setTheme(next);
  });

  var code = document.getElementById("code");
  if (code) {
    var blocks = Array.prototype.slice.call(document.querySelectorAll("details.code"));
    code.hidden = false;
    code.addEventListener("click", function () {
      var open = code.getAttribute("aria-pressed") !== "true";
      blocks.forEach(function (block) { block.open = open; });
      code.setAttribute("aria-pressed", String(open));
      code.textContent = open ? "Hide code" : "Show code";
    });
  }

  // The caption of a table stays in view while the table scrolls, and names the part that scrolls.
  document.querySelectorAll("article .table-scroll caption").forEach(function (caption) {
    var text = document.createElement("p"), frame = caption.closest(".table-scroll");
    frame = frame.parentElement.closest(".table-scroll") || frame;
    text.className = "caption";
    text.append.apply(text, caption.childNodes);
    frame.before(text);
    frame.setAttribute("aria-label", text.textContent);
    caption.remove();
  });

  // Columns of numbers, with their heads, stand to the right; an interval does not break.
  var number = /^[-+−–]?[\d,.]*%?( \(.{5,24}\))?$/;
  document.querySelectorAll("main table").forEach(function (table) {
    var width = Math.max.apply(null, Array.prototype.map.call(table.rows, function (row) { return row.cells.length; }));
    for (var place = 0; place < width; place += 1) {
      var cells = Array.prototype.map.call(table.rows, function (row) { return row.cells[place]; }).filter(Boolean);
      var body = cells.filter(function (cell) { return cell.tagName === "TD"; });
      if (body.length && body.every(function (cell) { return number.test(cell.textContent.trim()); })) {
        cells.forEach(function (cell) { cell.classList.add("number"); });
      }
    }
  });

  var contents = document.querySelector(".contents details");
  if (contents) {
    if (window.matchMedia("(max-width: 64rem)").matches) { contents.open = false; }
    var links = Array.prototype.slice.call(contents.querySelectorAll("a"));
    var mark = function () {
      var here = null;
      links.forEach(function (link) {
        var target = document.getElementById(decodeURIComponent(link.hash.slice(1)));
        if (target && target.getBoundingClientRect().top < 120) { here = link; }
      });
      links.forEach(function (link) {
        if (link === here) { link.setAttribute("aria-current", "true"); } else { link.removeAttribute("aria-current"); }
      });
    };
    document.addEventListener("scroll", mark, { passive: true });
    mark();
  }
})();
