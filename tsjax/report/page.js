"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;
  const probe = document.getElementById("probe");

  // The colour that a name of the style sheet has in the theme of the moment, as rgb(...).
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const faint = (text, share) => text.replace("rgb(", "rgba(").replace(")", `, ${share})`);
  // Narrower charts have no room for names beside their curves.
  const ROOM = 560;

  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  config.displayModeBar = touch ? false : "hover";

  // Colours of the theme, written into a figure.
  const paint = (figure) => {
    const [ink, soft, line, card] = ["ink", "soft", "line", "card"].map(colour);
    for (const trace of figure.data) {
      const { ink: own, fill, halo, share, edge } = trace.meta || {};
      if (own !== undefined) {
        const tint = colour(`c${own}`);
        if (trace.line) trace.line.color = tint;
        if (trace.marker) trace.marker.color = tint;
      }
      if (fill !== undefined) {
        trace.fillcolor = faint(colour(`c${fill}`), share);
        trace.line.color = faint(colour(`c${fill}`), edge);
      }
      if (halo !== undefined) trace.line.color = trace.marker.color = faint(colour(`c${halo}`), share);
      if (trace.colorbar) trace.colorbar.tickfont = { color: ink };
    }
    const layout = figure.layout;
    layout.font = { family: "system-ui, sans-serif", size: 12, color: ink };
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.hoverlabel = { bgcolor: card, bordercolor: soft, font: { color: ink }, align: "left" };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink };
    layout.dragmode = touch ? false : "zoom";
    for (const axis of [layout.xaxis, layout.yaxis]) {
      axis.gridcolor = axis.tickcolor = line;
      axis.linecolor = soft;
    }
    return figure;
  };

  const off = new Map(); // By section: the entries of its legend that are switched off.
  let chosen = null; // The number of the verdict that is shown alone.
  const draw = (place) => {
    const figure = paint(figures[place.dataset.figure]);
    const hidden = off.get(place.closest("section")) || new Set();
    const meta = (trace) => trace.meta || {};
    const about = figure.data.find((trace) => chosen !== null && meta(trace).mark === chosen);
    for (const trace of figure.data) {
      const { keys = [], mark, always } = meta(trace);
      trace.visible = keys.some((key) => hidden.has(key)) ? "legendonly" : true;
      if (mark !== undefined && trace.visible === true) trace.visible = about ? mark === chosen : always;
      trace.own ??= trace.opacity ?? 1;
      const dim = about && !keys.includes(meta(about).keys[0]) && !keys.includes("limit");
      trace.opacity = dim ? 0.35 * trace.own : trace.own;
    }
    // Names beside the curves, each "KEY COLOUR", where there is room.
    const layout = figure.layout;
    figure.names ??= layout.annotations || [];
    figure.right ??= layout.margin.r;
    const room = place.clientWidth >= ROOM;
    place.dataset.names = room ? "yes" : "no";
    layout.annotations = room ? figure.names.filter(({ name }) => !hidden.has(name.split(" ")[0])) : [];
    for (const name of layout.annotations) name.font.color = colour(`c${name.name.split(" ")[1]}`);
    layout.margin.r = room ? figure.right : 12;
    const drawn = Plotly.react(place, figure.data, figure.layout, config);
    place.dataset.drawn = "yes";
    return drawn;
  };

  const places = [...document.querySelectorAll(".chart")];
  const drawn = () => places.filter((place) => place.dataset.drawn);
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.dataset.drawn && (target.clientWidth >= ROOM) !== (target.dataset.names === "yes")) draw(target);
    }
  });
  // The first chart at once, the others when the reader comes near.
  const start = () => {
    const library = document.createElement("script");
    library.textContent = document.getElementById("library").textContent;
    document.head.append(library);
    places.forEach((place, number) => (number ? watcher.observe(place) : draw(place)));
    places.forEach((place) => resized.observe(place));
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        watcher.unobserve(target);
        draw(target);
      }
    }
  }, { rootMargin: "600px" });
  // Plotly takes a second to start: text and tables are on the screen before.
  addEventListener("load", () => requestAnimationFrame(() => setTimeout(start)));
  addEventListener("beforeprint", () => window.Plotly && places.forEach(draw));

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const section = button.closest("section");
      const hidden = off.get(section) || new Set();
      off.set(section, hidden);
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      if (on) hidden.delete(button.dataset.key);
      else hidden.add(button.dataset.key);
      drawn().filter((place) => section.contains(place)).forEach(draw);
    });
  }

  const choose = (entry, number) => {
    chosen = number;
    for (const one of document.querySelectorAll(".verdicts li")) {
      const on = one === entry && number !== null;
      one.classList.toggle("chosen", on);
      one.querySelector(".show")?.setAttribute("aria-pressed", String(on));
    }
    if (window.Plotly) drawn().forEach(draw);
  };
  for (const entry of document.querySelectorAll(".verdicts li")) {
    const button = entry.querySelector(".show");
    if (!button) continue;
    button.hidden = false;
    const number = Number(entry.dataset.mark);
    button.addEventListener("click", () => {
      choose(entry, chosen === number ? null : number);
      const names = entry.dataset.charts.split(" ");
      const seen = names.map((name) => places.find((place) => place.dataset.figure === name)).find(Boolean);
      if (chosen !== null && seen) seen.scrollIntoView({ block: "nearest", behavior: "smooth" });
    });
  }

  for (const menu of document.querySelectorAll("select.choose")) {
    menu.addEventListener("change", () => {
      const place = menu.closest("section").querySelector(".chart");
      place.dataset.figure = menu.value;
      Plotly.purge(place);
      draw(place);
    });
  }

  const toggle = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const retheme = () => {
    toggle.textContent = dark() ? "Light theme" : "Dark theme";
    drawn().forEach(draw);
  };
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    retheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", retheme);
  toggle.textContent = dark() ? "Light theme" : "Dark theme";
  toggle.hidden = false;

  const order = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  for (const table of document.querySelectorAll("table")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => {
        const up = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((other) => other.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.key;
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          // What is not there comes last, in either order.
          if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
          return (up ? 1 : -1) * order(key(a), key(b));
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
})();
