(function () {
  "use strict";
  var charts = Array.prototype.slice.call(document.querySelectorAll(".figure"));
  var table = document.querySelector("table");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }

  // ---- figures, in the page's own colours
  function painted(figure) {
    figure.data.forEach(function (trace) {
      var role = colour(trace.meta.role);
      if (trace.line) trace.line.color = role;
      if (!trace.marker) return;
      trace.marker.color = role;
      if (trace.marker.line) trace.marker.line.color = trace.marker.symbol === "circle" ? colour("paper") : role;
    });
    var layout = figure.layout;
    layout.font.color = colour("ink");
    Object.assign(layout.hoverlabel, { bgcolor: colour("card"), bordercolor: colour("line") });
    layout.hoverlabel.font.color = colour("ink");
    Object.keys(layout).filter(function (key) { return /^[xy]axis/.test(key); }).forEach(function (key) {
      Object.assign(layout[key], { gridcolor: colour("grid"), linecolor: colour("grid"), tickcolor: colour("grid") });
    });
    return figure;
  }

  function draw() {
    charts.forEach(function (chart) {
      var figure = painted(JSON.parse(document.getElementById(chart.dataset.figure).textContent));
      Plotly.react(chart, figure.data, figure.layout, {
        responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]
      });
    });
  }

  // ---- one member, marked wherever it appears
  function place(chart, id) {
    var spot = { x: [[]], y: [[]] };
    chart.data.forEach(function (trace) {
      var at = trace.meta.part === "members" && trace.customdata ? trace.customdata.indexOf(id) : -1;
      if (at >= 0) spot = { x: [[trace.x[at]]], y: [[trace.y[at]]] };
    });
    return spot;
  }

  function mark(id) {
    charts.forEach(function (chart) {
      var ring = chart.data.findIndex(function (trace) { return trace.meta.role === "ring"; });
      if (ring >= 0) Plotly.restyle(chart, place(chart, id), [ring]);
    });
    rows().forEach(function (row) { row.classList.toggle("hover", row.dataset.id === id); });
  }

  function rows() {
    return table ? Array.prototype.slice.call(table.tBodies[0].rows) : [];
  }

  // ---- the table
  function sort(header) {
    var up = header.getAttribute("aria-sort") !== "ascending";
    var at = header.cellIndex;
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell) { cell.removeAttribute("aria-sort"); });
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    rows().sort(function (a, b) {
      var left = a.cells[at].dataset.value, right = b.cells[at].dataset.value;
      var order = header.classList.contains("number") ? left - right : left.localeCompare(right);
      return up ? order : -order;
    }).forEach(function (row) { table.tBodies[0].appendChild(row); });
  }

  function copy(button) {
    var text = button.dataset.copy, label = button.textContent;
    function say(word) {
      button.textContent = word;
      setTimeout(function () { button.textContent = label; }, 1500);
    }
    function byHand() { // a page from disk, or in a frame, may not reach the clipboard directly
      var area = document.createElement("textarea");
      area.value = text;
      document.body.appendChild(area);
      area.select();
      var done = document.execCommand("copy");
      area.remove();
      if (done) say("copied"); else window.prompt("Copy this command:", text);
    }
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(function () { say("copied"); }, byHand);
    else byHand();
  }

  draw();
  dark.addEventListener("change", draw);
  charts.forEach(function (chart) {
    chart.on("plotly_hover", function (event) {
      var id = event.points[0].customdata;
      if (id) mark(id);
    });
    chart.on("plotly_click", function (event) {
      var row = rows().find(function (one) { return one.dataset.id === event.points[0].customdata; });
      if (row) row.scrollIntoView({ behavior: "smooth", block: "center" });
    });
  });
  if (!table) return;
  table.addEventListener("click", function (event) {
    var button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy) copy(button); else sort(button.closest("th"));
  });
  table.addEventListener("mouseover", function (event) {
    var row = event.target.closest("tbody tr");
    if (row && !row.classList.contains("hover")) mark(row.dataset.id);
  });
  var all = document.getElementById("all");
  if (all) all.addEventListener("change", function () { table.classList.toggle("all", all.checked); });
})();
