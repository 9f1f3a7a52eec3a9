"use strict";
// The grid: only the tiles in view exist. Rows and tiles are fetched in pages as one scrolls; the address holds the view.
(() => {
  const grid = document.getElementById("grid");
  if (!grid) return;
  const [form, count, going] = ["view", "count", "going"].map((id) => document.getElementById(id));
  const PAGE = 120, KEPT = 3000, AT_ONCE = 1000, GAP = 8, LINE = 36;
  const rows = new Map();      // place in the view → row
  const asked = new Set();     // pages that are on their way or here
  const tiles = new Map();     // number of a picture → address of its tile
  const cells = new Map();     // place in the view → element
  const selected = new Set();  // numbers of pictures
  const numbers = new Map();   // number of a picture → number of its latest decision that was shown here
  const data = document.getElementById("changed").dataset.of;  // the pictures that these numbers mean
  let [n, columns, size, focus, anchor, version] = [0, 1, 112, 0, 0, 0];
  let [fetching, wanted, back] = [false, [], null]; // back: where the reader was

  // the view, from the address and back
  const view = () => {
    const found = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (!value || name === "size") continue;
      if (name === "sort") {
        if (value === "order") continue;
        found.set("sort", value.replace("-", ""));
        if (value.startsWith("-")) found.set("descending", "true");
      } else found.set(name, ["least", "most"].includes(name) ? String(value / 100) : value);
    }
    return found;
  };
  const fromAddress = () => {
    const given = new URLSearchParams(location.search);
    for (const field of form.elements) {
      if (!field.name || field.name === "size") continue;
      let value = given.get(field.name) ?? "";
      if (["least", "most"].includes(field.name) && value) value = String(Math.round(value * 100));
      if (field.name === "sort") value = (given.get("descending") === "true" ? "-" : "") + (value || "order");
      field.value = value;
      if (field.value !== value && field.options) { field.add(new Option(value)); field.value = value; } // the server says what is wrong with it
    }
  };

  // geometry
  const side = () => size + LINE + GAP;
  const layout = () => {
    size = Number(form.elements.size.value);
    columns = Math.max(1, Math.floor((grid.clientWidth + GAP) / (size + GAP)));
    grid.style.setProperty("--size", `${size}px`);
    grid.firstElementChild.style.height = `${Math.ceil(n / columns) * side()}px`;
    draw();
  };
  const shown = () => {
    const top = Math.max(0, Math.floor(grid.scrollTop / side()) - 2);
    const bottom = Math.ceil((grid.scrollTop + grid.clientHeight) / side()) + 2;
    return [top * columns, Math.min(n, bottom * columns)];
  };

  const draw = () => {
    const [first, last] = shown();
    for (const [at, cell] of cells) if (at < first || at >= last) { cell.remove(); cells.delete(at); }
    const missing = [];
    const add = document.createDocumentFragment();
    for (let at = first; at < last; at += 1) {
      let cell = cells.get(at);
      if (!cell) {
        cell = document.createElement("a");
        cell.className = "cell";
        cell.setAttribute("role", "option");
        cell.tabIndex = -1;
        cell.dataset.at = at;
        cell.id = `picture-${at}`;
        cell.innerHTML = '<img alt="" decoding="async"><span class="what"></span><span class="name"></span>';
        cells.set(at, cell);
        add.append(cell);
      }
      cell.style.transform = `translate(${(at % columns) * (size + GAP)}px, ${Math.floor(at / columns) * side()}px)`;
      const row = rows.get(at);
      if (row) fill(cell, row);
      if (row && !tiles.has(row.index) && row.state === "read") missing.push(row.index);
    }
    grid.firstElementChild.append(add);
    for (let page = Math.floor(first / PAGE); page * PAGE < Math.max(last, 1); page += 1) load(page); // the first also while nothing matches
    wanted = missing;
    fetchTiles();
  };

  const percent = (value) => `${value < 0.99 ? Math.round(value * 100) : Math.floor(value * 1000) / 10} %`; // most scores are near 1
  const fill = (cell, row) => {
    const at = Number(cell.dataset.at);
    const chosen = selected.has(row.index);
    const state = `${row.index} ${tiles.has(row.index)} ${row.state} ${row.number} ${chosen} ${at === focus} ${row.similarity}`;
    if (cell.dataset.state === state) return;
    cell.dataset.state = state;
    cell.href = `/sample/${row.index}`;
    const tile = tiles.get(row.index);
    if (tile && cell.firstChild.src !== tile) cell.firstChild.src = tile;
    if (!tile) cell.firstChild.removeAttribute("src");
    const told = row.state === "waiting" ? "not looked at yet" : row.state === "unreadable" ? "cannot be read" : row.probability === null && row.verdict !== "not measured" ? row.title : `${percent(row.score)} ${row.title}${row.verdict === "not measured" ? ", not measured" : ""}`;
    cell.querySelector(".what").textContent = told;
    const label = row.decision === "changed" ? `${row.label} → ${row.decided}` : row.label;
    const near = Number.isFinite(row.similarity) && row.similarity.toFixed(2);
    cell.querySelector(".name").textContent = [near, label || row.image].filter(Boolean).join(" · ");
    cell.classList.toggle("right", row.right === true);
    cell.classList.toggle("wrong", row.right === false);
    cell.classList.toggle("finding", row.findings.length > 0);
    cell.classList.toggle("decided", !["undecided", "postponed"].includes(row.decision));
    cell.classList.toggle("at", at === focus);
    cell.setAttribute("aria-selected", chosen);
    const parts = [row.image, near && `similarity ${near}`, row.label && `labelled ${row.label}`, row.state === "read" ? `${row.title}, ${row.verdict}, score of ${row.predicted} ${percent(row.score)}` : told, ...row.findings];
    cell.title = parts.filter(Boolean).join(", ");
    cell.setAttribute("aria-label", cell.title);
  };

  // the heat of the picture under the pointer or the focus
  const at = document.getElementById("at"), [image, name, said] = at.children;
  const hide = () => { heat.rest(-1); at.hidden = true; };
  const heat = new Heat((index, address, told) => {
    const [place, row] = [...rows].find(([, one]) => one.index === index) ?? [], cell = cells.get(place);
    if (!cell) { URL.revokeObjectURL(address); return; }
    URL.revokeObjectURL(image.src);
    image.hidden = !address;
    image.src = address;
    name.textContent = row.image;
    said.textContent = told || `Heat for ${row.predicted}`;
    at.hidden = false;
    const [box, its] = [grid.getBoundingClientRect(), cell.getBoundingClientRect()];
    const right = its.right - box.left + 10, left = its.left - box.left - at.offsetWidth - 10;
    at.style.left = `${right + at.offsetWidth <= box.width ? right : Math.max(0, left)}px`;
    at.style.top = `${Math.max(0, Math.min(its.top - box.top, box.height - at.offsetHeight))}px`;
  });
  const byKeys = () => grid.matches(":focus-visible");
  const rest = (cell) => {
    const row = cell && rows.get(Number(cell.dataset.at));
    if (!row || row.index !== heat.of) at.hidden = true;
    heat.rest(row?.state === "read" ? row.index : -1);
  };
  let held = false; // by a finger: a long press shows the heat and opens nothing
  grid.addEventListener("pointerdown", (event) => { held = event.pointerType === "touch"; });
  grid.addEventListener("pointerover", (event) => rest(event.target.closest(".cell")));
  grid.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch" || at.hidden) hide(); });
  grid.addEventListener("contextmenu", (event) => { if (held) event.preventDefault(); });
  grid.addEventListener("focusin", () => { if (byKeys()) rest(cells.get(focus)); });
  grid.addEventListener("focusout", hide);
  grid.addEventListener("click", (event) => { if (held && !at.hidden) { event.preventDefault(); event.stopImmediatePropagation(); } }, true);

  // rows and tiles
  async function load(page) {
    if (asked.has(page)) return;
    asked.add(page);
    const mine = version;
    const query = view();
    query.set("start", page * PAGE);
    query.set("count", PAGE);
    try {
      const answer = await fetch(`/rows?${query}`);
      const found = await answer.json();
      if (mine !== version) return;
      if (!answer.ok) {
        count.textContent = found.error;
        asked.delete(page);
        if (query.has("like")) compared({ image: "a picture that is missing" });
        if (answer.status === 503) setTimeout(() => { if (mine === version) load(page); }, 3000);
        return;
      }
      found.rows.forEach((row, i) => { rows.set(page * PAGE + i, row); numbers.set(row.index, row.number); });
      tell(found);
    } catch {
      asked.delete(page);
      if (mine === version) count.textContent = "The server does not answer. Is seewhy app still running?";
      setTimeout(draw, 3000); // asks again, so that the page goes on once the server is back
      return;
    }
    draw();
    if (byKeys()) rest(cells.get(focus));
  }
  const tell = (data) => {
    const every = `${data.of.toLocaleString("en")} picture${data.of === 1 ? "" : "s"}`;
    const some = data.n === data.of ? every : `${data.n.toLocaleString("en")} of ${every}`;
    const left = data.of - data.done;
    const sorted = data.like && form.elements.sort.value === "order" ? ", most similar first" : "";
    count.textContent = data.problem ?? (left ? `${some}${sorted}; ${left.toLocaleString("en")} still to be looked at` : some + sorted);
    document.getElementById("fitted-on").textContent = data.fitted_on?.sentence ?? "";
    compared(data.like);
    going.hidden = !left;
    going.value = data.done;
    if (n !== data.n) { n = data.n; layout(); }
    if (back) { // once
      [focus, anchor, grid.scrollTop] = [back.focus, back.focus, back.top];
      if (back.keys) grid.focus({ preventScroll: true });
      back = null;
      draw();
    }
  };
  async function fetchTiles() {
    if (fetching || !wanted.length) return;
    fetching = true;
    const part = wanted.slice(0, 60);
    try {
      const answer = await fetch(`/tiles?places=${part.join(",")}`);
      if (answer.ok) {
        const data = await answer.arrayBuffer();
        const sizes = new DataView(data);
        let from = 4 * part.length;
        part.forEach((index, i) => {
          const length = sizes.getUint32(4 * i, true);
          if (length) tiles.set(index, URL.createObjectURL(new Blob([data.slice(from, from + length)], { type: "image/jpeg" })));
          from += length;
        });
        for (const [index, tile] of tiles) {
          if (tiles.size <= KEPT) break;
          URL.revokeObjectURL(tile);
          tiles.delete(index);
        }
      }
    } catch { /* asked again as one scrolls */ }
    fetching = false;
    wanted = wanted.slice(part.length).filter((index) => !tiles.has(index));
    for (const [at, cell] of cells) if (rows.has(at)) fill(cell, rows.get(at));
    if (wanted.length) fetchTiles();
  }

  const restart = () => {
    version += 1;
    rows.clear();
    asked.clear();
    [focus, anchor] = [0, 0];
    const query = view(), n_filters = [...document.querySelectorAll("#filters select, #filters input")].filter((field) => field.value).length;
    document.querySelector("#filters summary").textContent = n_filters ? `Filters (${n_filters})` : "Filters";
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    document.getElementById("to-map").href = `/map${location.search}`;
    grid.scrollTop = 0;
    load(0);
  };
  // While pictures are still being looked at, what is in view is asked for again.
  setInterval(() => { if (!going.hidden && !document.hidden) { asked.clear(); draw(); } }, 3000);

  // pictures similar to one that is selected, dropped or chosen
  const [liked, alike, looking, file, choose] = ["liked", "alike", "looking", "file", "choose"].map((id) => document.getElementById(id));
  const like = (key) => {
    form.elements.like.value = key;
    looking.textContent = "";
    if (form.elements.words) form.elements.words.value = "";
    form.elements.sort.value = "order";
    restart();
  };
  const compared = (picture) => {
    liked.hidden = !picture;
    form.elements.sort.options[0].text = picture ? "similarity" : "order in the data";
    if (!picture) return;
    const [link, thumbnail] = [liked.querySelector("a"), liked.querySelector("img")];
    liked.querySelector("b").textContent = picture.image;
    link.hidden = !picture.card;
    if (!picture.card || link.getAttribute("href") === picture.card) return;
    link.href = picture.card;
    thumbnail.src = picture.thumbnail;
    thumbnail.alt = `Card of ${picture.image}`;
  };
  let brought = 0; // the last file, if several come one after the other
  async function bring(picture) {
    const mine = ++brought;
    looking.textContent = `Looking at ${picture.name} …`;
    const body = new FormData();
    body.append("picture", picture);
    let [told, id] = ["The server does not answer. Is seewhy app still running?", null];
    try {
      const answer = await fetch("/look?format=json", { method: "POST", body });
      const data = await answer.json();
      [told, id] = [data.error, data.id];
    } catch { /* as above */ }
    if (mine !== brought) return;
    if (id) like(id);
    else looking.textContent = told;
  }
  document.addEventListener("brought", (event) => { event.preventDefault(); bring(event.detail); });
  choose.addEventListener("click", () => file.click());
  file.addEventListener("change", () => { if (file.files.length) bring(file.files[0]); file.value = ""; });
  document.getElementById("unlike").addEventListener("click", () => { like(""); choose.focus(); });
  alike.addEventListener("click", async () => {
    const answer = await fetch(`/rows?start=${[...selected][0]}&count=1`).catch(() => null); // in the order of the data
    const [row] = answer?.ok ? (await answer.json()).rows : [];
    if (row?.key) like(row.key);
    else looking.textContent = row ? `${row.image} has not been predicted yet, or cannot be read. Choose another picture.` : "The server does not answer. Is seewhy app still running?";
  });

  // selection
  const chosen = () => {
    alike.hidden = selected.size !== 1;
    document.getElementById("selection").hidden = !selected.size;
    document.getElementById("selected").value = `${selected.size.toLocaleString("en")} selected`;
    grid.dispatchEvent(new CustomEvent("chosen", { bubbles: true, detail: [...selected] }));
    draw();
  };
  async function range(from, to) {
    const places = Array.from({ length: Math.abs(to - from) + 1 }, (_, i) => Math.min(from, to) + i);
    if (places.every((at) => rows.has(at))) for (const at of places) selected.add(rows.get(at).index);
    else for (const index of (await matches()).slice(places[0], places.at(-1) + 1)) selected.add(index); // some were never in view
    chosen();
  }
  const flip = (at) => {
    const row = rows.get(at);
    if (row && !selected.delete(row.index)) selected.add(row.index);
  };
  async function matches() {
    const query = view();
    query.set("count", 0);
    query.set("places", "true");
    const answer = await fetch(`/rows?${query}`).catch(() => null);
    const found = await answer?.json();
    if (!answer?.ok) count.textContent = found?.error ?? "The server does not answer. Is seewhy app still running?";
    return found?.places ?? [];
  }
  const move = (to, event) => {
    focus = Math.max(0, Math.min(to, n - 1));
    if (event.shiftKey) range(anchor, focus); else anchor = focus;
    const top = Math.floor(focus / columns) * side();
    if (top < grid.scrollTop) grid.scrollTop = top;
    if (top + side() > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + side() - grid.clientHeight;
    draw();
    grid.setAttribute("aria-activedescendant", `picture-${focus}`);
    rest(cells.get(focus));
  };
  grid.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(grid.clientHeight / side())) * columns;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -n, End: n };
    if (event.key in steps) move(focus + steps[event.key], event);
    else if (event.key === " ") { flip(focus); chosen(); }
    else if (event.key === "Enter") { const row = rows.get(focus); if (row) location.href = `/sample/${row.index}`; }
    else if (event.key === "Escape" && !at.hidden) hide();
    else if (event.key === "Escape") { selected.clear(); chosen(); }
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) range(0, n - 1);
    else return;
    event.preventDefault();
  });
  grid.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell || !(event.ctrlKey || event.metaKey || event.shiftKey)) return;
    event.preventDefault();
    const at = Number(cell.dataset.at);
    focus = at;
    if (event.shiftKey) { range(anchor, at); return; }
    flip(at);
    anchor = at;
    chosen();
  });
  document.getElementById("none").addEventListener("click", () => { selected.clear(); chosen(); });

  document.getElementById("list").addEventListener("click", async () => {
    const body = JSON.stringify({ places: [...selected], data }); // too many for an address
    const answer = await fetch("/selection.csv?format=json", { method: "POST", headers: { "content-type": "application/json" }, body }).catch(() => null);
    if (!answer?.ok) { count.textContent = (await answer?.json())?.error ?? "The server does not answer. Is seewhy app still running?"; return; }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = "selection.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  // decisions on all that is selected
  const [who, label, told] = ["who", "new-label", "told"].map((id) => document.getElementById(id));
  if (who) {
    try { who.value = localStorage.getItem("seewhy name") ?? ""; } catch { /* forbidden: it is typed again */ }
    who.addEventListener("change", () => { try { localStorage.setItem("seewhy name", who.value); } catch { /* as above */ } });
    label.addEventListener("input", () => { document.querySelector("#selection [value=changed] span").textContent = label.value.trim() || "…"; });
    document.getElementById("selection").addEventListener("click", async (event) => {
      const decision = event.target.closest("button")?.value;
      if (!decision) return;
      if (!who.value.trim()) { told.value = "Type your name first."; who.focus(); return; }
      if (decision === "changed" && !label.value.trim()) { told.value = "Type the new label first."; label.focus(); return; }
      const places = [...selected], refused = [];
      let saved = 0;
      try {
        for (let from = 0; from < places.length; from += AT_ONCE) {
          const part = places.slice(from, from + AT_ONCE);
          const bases = Object.fromEntries(part.filter((i) => numbers.get(i)).map((i) => [i, numbers.get(i)]));
          const body = JSON.stringify({ author: who.value, decision, label: label.value.trim(), places: part, bases, data });
          const answer = await fetch("/decide-many?format=json", { method: "POST", headers: { "content-type": "application/json" }, body });
          const done = await answer.json();
          if (!answer.ok) { told.value = done.error; break; }
          for (const [index, number] of Object.entries(done.numbers)) numbers.set(Number(index), number);
          saved += done.saved;
          refused.push(...done.refused);
          const some = refused.slice(0, 3).map((one) => `${one.image}: ${one.error}`).join(" ");
          const not = refused.length ? `${refused.length.toLocaleString("en")} not: ${some}${refused.length > 3 ? " …" : ""}` : "";
          told.value = `${saved.toLocaleString("en")} ${decision === "undo" ? "undone" : decision.replace("_", " ")}. ${not}`;
        }
      } catch {
        told.value = "The server stopped answering. Some of these decisions may be saved; the grid shows which once it answers again.";
      }
      asked.clear();
      draw();
    });
  }

  let late = 0;
  form.addEventListener("input", (event) => {
    if (event.target.name === "size") { layout(); return; }
    if (event.target.name === "words") form.elements.like.value = "";
    clearTimeout(late);
    late = setTimeout(restart, 250);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  let drawing = false;
  grid.addEventListener("scroll", () => {
    at.hidden = true;
    if (!byKeys()) heat.rest(-1);
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => { drawing = false; draw(); });
  }, { passive: true });
  new ResizeObserver(layout).observe(grid);
  document.addEventListener("decided", () => { asked.clear(); draw(); });

  grid.innerHTML = '<div class="all" role="presentation"></div>';
  fromAddress();
  layout();
  restart();
  try { // what was selected on another page; or here, if the reader comes back or loads the page again
    const given = JSON.parse(sessionStorage.getItem("seewhy selection"));
    const returned = performance.getEntriesByType("navigation")[0].type !== "navigate" && given.at?.search === location.search;
    if (given.data === data && (returned || !given.at)) for (const i of given.places) selected.add(i);
    if (returned) back = given.at;
    if (selected.size) chosen();
  } catch { /* forbidden, or there is none: nothing is selected */ }
  addEventListener("pagehide", () => {
    const at = { search: location.search, focus, top: grid.scrollTop, keys: document.activeElement === grid };
    try { sessionStorage.setItem("seewhy selection", JSON.stringify({ data, places: [...selected], at })); } catch { /* as above */ }
  });
})();
