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

  // A fold is named by what its code does: the last heading, or the first clause, of the text before it.
  document.querySelectorAll("details.code").forEach(function (fold) {
    var summary = fold.querySelector("summary"), before = fold.previousElementSibling, said = "";
    if (summary.textContent !== "Code") { return; }
    if (/^(import|from) /.test(fold.querySelector("pre").textContent.trim())) {
      said = "imports";
    } else if (before && before.matches(".prose:not(.computed)")) {
      var last = before.querySelector("h2:last-of-type, h3:last-of-type"), first = before.querySelector("p");
      said = last ? last.firstChild.textContent.replace(/^\d+\. /, "") : first ? first.textContent.split(/[.:;](\s|$)/)[0] : "";
    }
    if (said && said !== "Expected") { summary.textContent = "Code: " + said; }
  });

  // The choice of code or no code goes from page to page.
  var code = document.getElementById("code");
  if (code) {
    var showCode = function (open) {
      document.querySelectorAll("details.code").forEach(function (fold) { fold.open = open; });
      code.setAttribute("aria-pressed", String(open));
      code.textContent = open ? "Hide code" : "Show code";
    };
    code.hidden = false;
    if (store.get("breakhis-code") === "shown") { showCode(true); }
    code.addEventListener("click", function () {
      var open = code.getAttribute("aria-pressed") !== "true";
      store.set("breakhis-code", open ? "shown" : "hidden");
      showCode(open);
    });
  }

  // A click on a figure shows it as large as the window; Escape or another click closes it.
  var large = document.createElement("dialog"), close = document.createElement("button");
  large.className = "large";
  large.setAttribute("aria-label", "Figure, enlarged");
  close.type = "button";
  close.textContent = "Close";
  large.addEventListener("click", function () { large.close(); });
  document.body.append(large);
  document.querySelectorAll("figure img").forEach(function (image) {
    var button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    button.title = "Enlarge";
    image.replaceWith(button);
    button.append(image);
    button.addEventListener("click", function () {
      large.replaceChildren(close, image.cloneNode());
      large.showModal();
    });
  });

  // A term leads to the glossary of the index where a page first uses it in its prose.
  var home = document.querySelector(".glossary") ? "" : "index.html";
  JSON.parse(document.getElementById("glossary").textContent).forEach(function (entry) {
    var pattern = new RegExp("(^|[^\\w-])(" + entry[1] + ")(?![\\w-])", "i");
    var prose = document.querySelectorAll(".question, .finding, .prose p, .prose li");
    for (var i = 0; i < prose.length; i += 1) {
      var walker = document.createTreeWalker(prose[i], NodeFilter.SHOW_TEXT), node;
      while ((node = walker.nextNode())) {
        var found = !node.parentElement.closest("a, code") && pattern.exec(node.data);
        if (found) {
          var term = document.createElement("dfn"), link = document.createElement("a");
          var word = node.splitText(found.index + found[1].length);
          word.splitText(found[2].length);
          link.className = "term";
          link.href = home + "#" + entry[0].replace(/ /g, "-");
          link.title = entry[2];
          link.textContent = word.data;
          term.append(link);
          word.replaceWith(term);
          return;
        }
      }
    }
  });

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

  // Long text wraps, where short words and numbers do not.
  document.querySelectorAll("main td").forEach(function (cell) {
    if (cell.textContent.length > 40) { cell.classList.add("long"); }
  });

  // The first cell of a row is its head.
  function nameRow(cell) {
    var head = document.createElement("th");
    head.scope = "row";
    head.append.apply(head, cell.childNodes);
    head.className = cell.className;
    cell.replaceWith(head);
  }

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
      if (place === 0) { body.forEach(nameRow); }
    }
  });

  // A table that is wider than its frame says so.
  document.querySelectorAll("main .table-scroll").forEach(function (frame) {
    if (frame.scrollWidth > frame.clientWidth + 1 && !frame.closest("details:not([open])")) {
      var caption = frame.previousElementSibling, more = document.createElement("span");
      frame.classList.add("scrolls");
      if (caption && caption.matches("p.caption")) {
        more.className = "more";
        more.textContent = " Scrolls sideways \u2192";
        caption.append(more);
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
