"use strict";
(() => {
  const sortKey = (cell) => {
    const value = cell && cell.dataset.value;
    return value === undefined ? null : Number(value);
  };

  // Rows of a baseline stay last; cells without a number come after those with one, whichever way is sorted.
  const compare = (column, numeric, sign) => (a, b) => {
    const fixed = a.classList.contains("baseline") - b.classList.contains("baseline");
    if (fixed) return fixed;
    if (!numeric) {
      const texts = [a, b].map((row) => (row.cells[column] ? row.cells[column].textContent : ""));
      return sign * texts[0].localeCompare(texts[1], "en", { numeric: true });
    }
    const [x, y] = [sortKey(a.cells[column]), sortKey(b.cells[column])];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (x - y);
  };

  const makeSortable = (table) => {
    const body = table.tBodies[0];
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const ascending = header.getAttribute("aria-sort") !== "ascending";
        headers.forEach((other) => other.setAttribute("aria-sort", "none"));
        header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const rows = [...body.rows];
        const numeric = rows.some((row) => sortKey(row.cells[column]) !== null);
        body.append(...rows.sort(compare(column, numeric, ascending ? 1 : -1)));
      });
    });
  };

  const makeFilterable = (box) => {
    const tools = box.querySelector(".tools");
    if (!tools) return;
    const rows = [...box.querySelector("tbody").rows];
    const input = tools.querySelector("input");
    const shown = tools.querySelector(".shown");
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        count += row.hidden ? 0 : 1;
      }
      shown.textContent = words.length ? `${count} of ${rows.length} rows` : "";
    };
    input.addEventListener("input", apply);
    tools.hidden = false;
  };

  const tip = document.getElementById("tip");
  let near = null;

  const hide = () => {
    tip.hidden = true;
    if (near) near.classList.remove("near");
    near = null;
  };

  const show = (dot) => {
    if (near === dot) return;
    hide();
    near = dot;
    dot.classList.add("near");
    tip.textContent = dot.dataset.tip;
    tip.hidden = false;
    const place = dot.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, place.left + place.width / 2 - size.width / 2), innerWidth - size.width - 4);
    const above = place.top - size.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : place.bottom + 8}px`;
  };

  const makeHoverable = (plot) => {
    const dots = [...plot.querySelectorAll("[data-tip]")];
    if (!dots.length) return;
    const reach = 24;
    const hover = (event) => {
      const matrix = plot.getScreenCTM();
      if (!matrix) return;
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      let best = null;
      let nearest = reach / matrix.a;
      for (const dot of dots) {
        const distance = Math.hypot(dot.dataset.x - at.x, dot.dataset.y - at.y);
        if (distance < nearest) [best, nearest] = [dot, distance];
      }
      if (best) show(best);
      else hide();
    };
    plot.addEventListener("pointermove", hover);
    plot.addEventListener("pointerdown", hover);
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    const inOrder = [...dots].sort((a, b) => a.dataset.x - b.dataset.x);
    // A page that scrolls hides the tip, also the scroll that brings a focused plot into view; the walk goes on from here.
    let walked = -1;
    plot.addEventListener("blur", () => { walked = -1; });
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const from = near ? inOrder.indexOf(near) : walked;
      walked = from < 0 ? 0 : (from + step + inOrder.length) % inOrder.length;
      show(inOrder[walked]);
    });
  };

  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
  });

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
  addEventListener("scroll", hide, { passive: true });

  document.querySelectorAll("table").forEach(makeSortable);
  document.querySelectorAll(".table").forEach(makeFilterable);
  document.querySelectorAll("svg.plot").forEach(makeHoverable);
  document.querySelectorAll(".shot img").forEach((image) => {
    image.addEventListener("click", () => image.closest(".shot").classList.toggle("large"));
  });
})();
