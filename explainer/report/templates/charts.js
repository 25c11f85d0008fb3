"use strict";
// Charts are drawn when they come into view: a page may have a hundred of them.
(() => {
  const PAPER = 640; // pixels across that a sheet of A4 or Letter leaves
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: "#1f2933" };
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

  const draw = (chart) => {
    const figure = JSON.parse(chart.querySelector("script").textContent);
    const axis = { gridcolor: "#e4e7eb", zerolinecolor: "#9aa5b1", automargin: true, linecolor: "#9aa5b1" };
    const layout = {
      font,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 16, t: 8, b: 32 },
      hoverlabel: { namelength: -1 },
      ...figure.layout,
      xaxis: { ...axis, ...figure.layout.xaxis },
      yaxis: { ...axis, ...figure.layout.yaxis },
    };
    Plotly.newPlot(chart.querySelector(".plot"), figure.data, layout, config);
  };

  // On paper nobody scrolls: all charts are drawn, as wide as the sheet, and all pictures are loaded.
  const prepare = () => {
    for (const picture of document.querySelectorAll("img[loading=lazy]")) picture.loading = "eager";
    for (const chart of document.querySelectorAll(".chart")) {
      if (chart.closest("details:not([open])")) continue;
      watcher.unobserve(chart);
      if (!chart.querySelector(".main-svg")) draw(chart);
      Plotly.relayout(chart.querySelector(".plot"), { width: PAPER });
    }
  };

  const restore = () => {
    for (const plot of document.querySelectorAll(".plot.js-plotly-plot")) Plotly.relayout(plot, { width: null, autosize: true });
  };

  addEventListener("beforeprint", prepare);
  addEventListener("afterprint", restore);

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  for (const chart of document.querySelectorAll(".chart")) watcher.observe(chart);
})();
