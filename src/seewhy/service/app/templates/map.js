"use strict";
// The map: points from the server, coloured by a column; a selection is handed to the grid.
(() => {
  const box = document.getElementById("map");
  if (!box) return;
  const [by, count, going, note, legend, at, line, lasso] = ["by", "count", "going", "note", "legend", "at", "line", "draw"].map((id) => document.getElementById(id));
  const canvas = box.querySelector("canvas"), points = new Points(canvas);
  if (!points.gl) {
    document.getElementById("no-gl").hidden = false;
    for (const one of [document.getElementById("mapped"), count]) one.hidden = true;
    return;
  }
  const [COLOURS, RAMP, [GREY]] = ["colours", "ramp", "grey"].map((name) => box.dataset[name].split(" "));
  const UNKNOWN = 65535, MOST = 20;
  const selected = new Set();
  let [column, view, values, only, version, done, pinned, shownAt, asking] = [null, null, null, -1, 0, -1, false, -1, 0];

  const channels = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
  const ramp = (value) => {
    const place = value * (RAMP.length - 1), k = Math.min(RAMP.length - 2, Math.floor(place));
    const [a, b] = [channels(RAMP[k]), channels(RAMP[k + 1])];
    return a.map((one, i) => one + (b[i] - one) * (place - k));
  };
  const colourOf = (k) => (k === UNKNOWN || k >= MOST ? GREY : COLOURS[k]);
  const bright = (i) => (!view || view.has(i)) && (only < 0 || values[i] === only);

  const paint = () => {
    if (!column || values.length !== points.n) return;
    const colours = new Uint8Array(4 * points.n), sizes = new Uint8Array(points.n);
    const palette = new Map();
    const light = selected.size ? 110 : 215;
    for (let i = 0; i < points.n; i += 1) {
      let colour = palette.get(values[i]);
      if (!colour) {
        colour = column.kind === "quantity" && values[i] !== UNKNOWN ? ramp(values[i] / 65534) : channels(colourOf(values[i]));
        palette.set(values[i], colour);
      }
      colours.set(colour, 4 * i);
      const chosen = selected.has(i);
      colours[4 * i + 3] = chosen ? 255 : bright(i) ? light : 26;
      sizes[i] = chosen ? 9 : 6;
    }
    points.paint(colours, sizes);
  };

  const explain = () => {
    legend.replaceChildren();
    if (column.kind === "quantity") {
      const item = document.createElement("li"), bar = document.createElement("span");
      bar.className = "ramp";
      bar.style.background = `linear-gradient(90deg, ${RAMP.join(", ")})`;
      const said = (value) => (column.name === "score" ? `${Math.round(100 * value)}\u00a0%` : value.toFixed(2));
      item.append(said(column.low), bar, said(column.high));
      legend.append(item);
      return;
    }
    const entries = column.legend.map(({ name, n }, k) => [k, name, n]);
    entries.push([UNKNOWN, "not known", values.reduce((n, one) => n + (one === UNKNOWN), 0)]);
    entries.forEach(([k, name, n]) => {
      if (!n) return;
      const item = document.createElement("li"), button = document.createElement("button"), dot = document.createElement("span");
      button.type = "button";
      button.setAttribute("aria-pressed", only === k);
      button.title = `Show only ${name}`;
      dot.className = "dot";
      dot.style.background = colourOf(k);
      button.append(dot, `${name} ${n.toLocaleString("en")}`);
      button.addEventListener("click", () => { only = only === k ? -1 : k; explain(); paint(); legend.querySelector("[aria-pressed=true]")?.focus(); });
      item.append(button);
      legend.append(item);
    });
  };

  // what the server knows
  const json = async (address) => {
    const answer = await fetch(address), data = await answer.json();
    if (!answer.ok) throw new Error(data.error);
    return data;
  };
  async function loadColumn() {
    const mine = (asking += 1), found = await json(`/column?name=${by.value}`);
    if (mine !== asking) return;
    const bytes = Uint8Array.from(atob(found.values), (sign) => sign.charCodeAt(0));
    [column, values] = [found, new Uint16Array(bytes.buffer)];
    explain();
    paint();
  }
  async function loadView() {
    const query = new URLSearchParams(location.search);
    for (const name of ["sort", "descending", "words", "like"]) query.delete(name);
    document.getElementById("grid-link").href = document.getElementById("open").href = `/browse${location.search}`;
    if (!query.size) return;
    query.set("count", 0);
    query.set("places", "true");
    view = new Set((await json(`/rows?${query}`)).places);
  }
  const tell = (state) => {
    const some = `${state.n.toLocaleString("en")} picture${state.n === 1 ? "" : "s"}`, left = state.n - state.done;
    const filtered = view ? ` ${view.size.toLocaleString("en")} match the filters of the grid; the others are faint.` : "";
    const told = !state.working && state.method === "none" ? `None of ${some} could be placed.`
      : left ? `Pictures appear as they are encoded. ${left.toLocaleString("en")} of ${some} are left.`
      : state.working && state.method !== "none" ? `${some}. Similar pictures are being put beside each other: ${Math.round(100 * state.progress)}\u00a0%.`
      : state.method === "none" ? `${some} are being placed.`
      : state.method === "neighbours" ? `${some}. Similar pictures are beside each other.`
      : `${some}, placed by the two directions in which they differ most.`;
    if (count.textContent !== told + filtered) count.textContent = told + filtered;
    note.textContent = state.note ?? "";
    going.hidden = !state.working;
    going.value = left ? state.done / state.n : state.progress;
  };
  async function follow() {
    let again = true;
    try {
      const state = await json("/map?format=json");
      if (state.version !== version) {
        const answer = await fetch("/points");
        version = Number(answer.headers.get("x-version"));
        points.set(new Float32Array(await answer.arrayBuffer()));
        paint();
      }
      if (state.done !== done) { done = state.done; await loadView(); await loadColumn(); }
      tell(state);
      again = state.working || state.version !== version;
    } catch (error) {
      count.textContent = error instanceof TypeError ? "The server does not answer. Is seewhy app still running?" : error.message;
    }
    if (again) setTimeout(follow, document.hidden ? 8000 : 1500);
  }

  // the picture of a point, and with its heat where the pointer rests
  const [image, ...lines] = at.children, warm = lines[3];
  let warmed = -1;
  const draw = (address) => { URL.revokeObjectURL(image.src); image.hidden = !address; image.src = address; };
  const heat = new Heat((i, address, told) => {
    if (address) { draw(address); warmed = i; }
    warm.textContent = told || "Heat for the prediction";
    put();
  });
  async function show(i) {
    if (i === shownAt) return;
    shownAt = i;
    at.hidden = true;
    heat.rest(i);
    if (i < 0) return;
    [warm.textContent, warmed] = ["", -1];
    draw("");
    const [data, tile] = await Promise.all([json(`/rows?start=${i}&count=1`), fetch(`/tiles?places=${i}`).then((answer) => answer.arrayBuffer())]);
    if (i !== shownAt) return;
    const row = data.rows[0], [name, label, said] = lines;
    note.textContent = data.note ?? "";
    if (warmed !== i) draw(tile.byteLength < 5 ? "" : URL.createObjectURL(new Blob([tile.slice(4)], { type: "image/jpeg" })));
    name.textContent = row.image;
    label.textContent = row.label ? `labelled ${row.label}` : "no label";
    const score = row.probability === null && row.verdict !== "not measured" ? "" : `; score of ${row.predicted} ${Math.round(100 * row.score)}\u00a0%`;
    said.textContent = row.predicted ? `predicted ${row.title ?? row.predicted}, ${row.verdict}${score}` : "not predicted";
    at.lastElementChild.href = `/sample/${i}`;
    at.lastElementChild.hidden = row.state === "unreadable";
    at.hidden = false;
    put();
  }
  const put = () => {
    if (at.hidden) return;
    const [x, y] = points.toPage(shownAt);
    const [w, h] = [at.offsetWidth, at.offsetHeight];
    at.style.left = `${Math.max(0, Math.min(x + 12, box.clientWidth - w))}px`;
    at.style.top = `${Math.max(0, Math.min(y > h + 24 ? y - h - 12 : y + 12, box.clientHeight - h))}px`;
  };
  const find = (x, y, within = 10) => points.nearest(x, y, within, bright);

  // selection
  const chosen = () => {
    document.getElementById("selection").hidden = !selected.size;
    document.getElementById("selected").value = `${selected.size.toLocaleString("en")} selected`;
    paint();
  };
  document.getElementById("none").addEventListener("click", () => { selected.clear(); chosen(); });
  document.getElementById("open").addEventListener("click", (event) => {
    try { sessionStorage.setItem("seewhy selection", JSON.stringify({ data: document.getElementById("changed").dataset.of, places: [...selected] })); } catch {
      event.preventDefault();
      count.textContent = "This browser does not let the page keep the selection. Allow session storage for this address.";
    }
  });

  // pointer and keys
  const [press, fingers] = [{ ring: null, far: 0 }, new Map()];
  const place = (event) => { const edge = canvas.getBoundingClientRect(); return [event.clientX - edge.left, event.clientY - edge.top]; };
  const apart = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    press.far = fingers.size > 1 ? 99 : 0;
    press.ring = fingers.size === 1 && (event.shiftKey || lasso.getAttribute("aria-pressed") === "true") ? [place(event)] : null;
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event), from = fingers.get(event.pointerId);
    if (!from) { if (!pinned) show(find(x, y)); return; }
    const step = Math.hypot(x - from[0], y - from[1]);
    press.far += step;
    if (press.ring) {
      if (step < 3) return;
      press.ring.push([x, y]);
      line.setAttribute("points", press.ring.map((p) => p.join(",")).join(" "));
      fingers.set(event.pointerId, [x, y]);
      return;
    }
    const before = fingers.size === 2 ? apart() : 0;
    fingers.set(event.pointerId, [x, y]);
    if (before) points.zoom(apart() / before, x, y); else points.pan(x - from[0], y - from[1]);
    put();
  });
  const lifted = (event) => {
    if (!fingers.delete(event.pointerId) || event.type === "pointercancel") { press.ring = null; line.setAttribute("points", ""); return; }
    const [x, y] = place(event);
    if (press.ring && press.ring.length > 2) {
      for (const i of points.inside(press.ring)) if (bright(i)) selected.add(i);
      chosen();
    } else if (press.far < 5) {
      const i = find(x, y, event.pointerType === "touch" ? 20 : 10);
      pinned = i >= 0;
      show(i);
    }
    press.ring = null;
    line.setAttribute("points", "");
  };
  canvas.addEventListener("pointerup", lifted);
  canvas.addEventListener("pointercancel", lifted);
  box.addEventListener("pointerleave", () => { if (!pinned) show(-1); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    points.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event));
    put();
  }, { passive: false });
  const whole = () => { Object.assign(points, { x: 0, y: 0, scale: 1 }); points.draw(); put(); };
  const zoom = (factor) => { points.zoom(factor); put(); };
  const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) { points.pan(...steps[event.key]); put(); }
    else if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-" || event.key === "−") zoom(1 / 1.4);
    else if (event.key === "Enter") { pinned = true; show(find(canvas.clientWidth / 2, canvas.clientHeight / 2, 400)); }
    else if (event.key === "Escape") { pinned = false; only = -1; show(-1); selected.clear(); if (column) explain(); chosen(); }
    else return;
    event.preventDefault();
  });
  lasso.addEventListener("click", () => lasso.setAttribute("aria-pressed", lasso.getAttribute("aria-pressed") !== "true"));
  for (const [id, act] of [["in", () => zoom(1.4)], ["out", () => zoom(1 / 1.4)], ["whole", whole]]) document.getElementById(id).addEventListener("click", act);
  by.addEventListener("change", () => { only = -1; loadColumn().catch((error) => { count.textContent = error.message; }); });
  new ResizeObserver(() => { points.draw(); put(); }).observe(canvas);
  follow();
})();
