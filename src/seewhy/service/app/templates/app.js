(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const make = (tag, properties, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };

  /* a picture dropped or pasted anywhere */
  const send = (file) => {
    if (!document.dispatchEvent(new CustomEvent("brought", { cancelable: true, detail: file }))) return; // the grid takes it
    const input = make("input", { type: "file", name: "picture" });
    const carrier = new DataTransfer();
    carrier.items.add(file);
    input.files = carrier.files;
    const form = make("form", { method: "post", action: "/look", enctype: "multipart/form-data", hidden: true }, input);
    one(".drop")?.classList.add("busy");
    document.body.append(form);
    form.submit();
  };
  /* Browsers know the types of few pictures, so the server says whether a dropped file is one. */
  const brought = (transfer) => {
    const files = [...(transfer?.files ?? [])];
    return files.find((file) => file.type.startsWith("image/")) ?? files[0];
  };
  let own = false; // browsers call a picture of this page, such as a tile, a file too
  for (const kind of ["dragstart", "dragend"]) document.addEventListener(kind, () => { own = kind === "dragstart"; });
  const isFile = (event) => !own && event.dataTransfer.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    if (!isFile(event)) return;
    event.preventDefault();
    const file = brought(event.dataTransfer);
    if (file) send(file);
  });
  document.addEventListener("paste", (event) => {
    const file = brought(event.clipboardData);
    if (file?.type.startsWith("image/")) send(file);
  });
  all(".scripted").forEach((node) => { node.hidden = false; });
  one(".drop")?.addEventListener("submit", (event) => event.target.classList.add("busy"));

  /* the keys of every page */
  document.addEventListener("keydown", (event) => {
    const keys = one("#all-keys");
    if (event.key !== "?" || !keys || event.target.closest?.("input:not([type=range], [type=checkbox]), textarea, select")) return;
    event.preventDefault();
    if (keys.open) keys.close(); else keys.showModal();
  });

  /* parts of a page, fetched again */
  const swap = async (url, selectors) => {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`the server answered with status ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const selector of selectors) {
      const [old, now] = [one(selector), fresh.querySelector(selector)];
      if (old && now) old.replaceWith(now);
    }
    document.dispatchEvent(new Event("listed"));
  };

  /* mistakes, as they are found */
  const follow = async () => {
    const going = () => one("#found")?.dataset.going === "yes";
    let late = false;
    while (going() || late) {
      await new Promise((done) => setTimeout(done, 1000));
      // What a person reads or is about to press does not move.
      const reading = one("#listed").contains(document.activeElement) || one("#listed").matches(":hover");
      if (reading && !going()) continue;
      late = reading;
      await swap(location.href, reading ? ["#found"] : ["#found", "#listed"]).catch(() => { late = true; });
    }
  };
  follow();

  /* what changes in the folders of the data */
  const changed = one("#changed");
  const look = async () => {
    if (document.hidden) return;
    const { note, data } = await fetch("/changed").then((answer) => answer.json()).catch(() => ({}));
    if (data === undefined) return;
    const text = data === changed.dataset.of ? note ?? "" : "The server was started again and the data have changed. Reload this page to see them.";
    if (changed.textContent !== text) changed.textContent = text;
  };
  if (changed) { look(); setInterval(look, 5000); }

  const tools = one("#tools");
  if (!tools) return;
  const card = `/card/${tools.dataset.id}`;
  const asked = (more = {}) => {
    const query = new URLSearchParams(location.search);
    for (const key of [...query.keys()]) if (key !== "target" && key !== "contrast") query.delete(key);
    for (const [key, value] of Object.entries(more)) query.set(key, value);
    const text = query.toString();
    return text && `?${text}`;
  };
  const known = new Map();
  const remember = (url) => {
    if (!known.has(url)) {
      const answer = fetch(url).then((response) => {
        if (!response.ok) throw new Error(`the server answered with status ${response.status}`);
        return response.json();
      });
      answer.catch(() => known.delete(url));
      known.set(url, answer);
    }
    return known.get(url);
  };

  /* measured while it is read */
  const evidence = [".decision", ".evidence"];
  /* who reads by keys stays where they were, counted from the end: what was measured comes in before */
  const stops = () => all(".evidence a, .evidence summary, .evidence tbody th");
  let round = 0;
  const measure = async () => {
    if (tools.dataset.measure !== "yes") return;
    const mine = ++round;
    const status = one(".status");
    status.textContent = "Measuring how faithful the heat is …";
    try {
      const answer = await fetch(`${card}${asked({ measure: "true" })}`);
      const text = await answer.text();
      if (mine !== round) return;
      if (!answer.ok) throw new Error(`the server answered with status ${answer.status}`);
      const fresh = new DOMParser().parseFromString(text, "text/html");
      const before = stops();
      const place = before.indexOf(document.activeElement);
      const open = all("details[open]").length;
      /* what a person has opened beside the picture stays open */
      for (const selector of open ? [".evidence"] : evidence) one(selector).replaceWith(fresh.querySelector(selector));
      ready();
      if (place >= 0) stops().at(place - before.length)?.focus({ preventScroll: true });
      status.textContent = "";
    } catch (error) {
      if (mine === round) status.textContent = `Not measured: ${error.message}. Load the page again to try once more.`;
    }
  };

  /* pointing */
  let at = null;
  let wanted = 0;
  const panel = () => one(".pointed");
  const ready = () => {
    all("#words tbody th").forEach((node) => { node.tabIndex = 0; });
    const photo = one(".photo");
    photo.tabIndex = 0;
    photo.setAttribute("role", "group");
    photo.setAttribute("aria-label", "The picture. Arrow keys point at a place.");
    if (!panel()) {
      const empty = make("div", { className: "pointed" });
      empty.setAttribute("aria-live", "polite");
      (one(".picture .control") ?? one(".picture figure")).after(empty);
      hint();
    }
  };
  const hint = () => {
    if (panel()) panel().replaceChildren(make("p", {}, "Point at the picture to see what a place looks like, or at a sentence to see where it fits."));
  };
  const clear = () => {
    wanted += 1;
    at = null;
    all(".photo .cell, .photo .of-word").forEach((node) => node.remove());
    one(".photo").classList.remove("pointing");
    hint();
  };
  const percent = (value) => `${value > 0 && value < 0.005 ? "<1" : Math.round(value * 100)}\u202f%`;
  const target = () => one(".picture figcaption b")?.textContent ?? one("h1").firstChild.textContent.trim();

  const word = async (row) => {
    const text = row.querySelector("th").firstChild.textContent.trim();
    const label = row.closest("table").querySelector("thead b").textContent;
    const mine = ++wanted;
    const found = await remember(`${card}/words${asked()}`).catch((error) => ({ maps: [], missing: `No answer: ${error.message}. Try again.`, cure: "" }));
    if (mine !== wanted) return;
    const photo = one(".photo");
    all(".photo .cell, .photo .of-word").forEach((node) => node.remove());
    const map = found.maps.find((m) => m.text === text && m.label === label);
    const quoted = make("b", {}, `“${text}”`);
    if (!map) return panel().replaceChildren(make("p", {}, found.missing ? `${found.missing} ${found.cure}` : "There is no map for this sentence."));
    photo.classList.add("pointing");
    if (map.overlay) photo.append(make("img", { className: "of-word", src: map.overlay, alt: "" }));
    const said = map.overlay ? ": the places where it fits better than the sentences of the other class." : " fits nowhere better than the sentences of the other class.";
    panel().replaceChildren(make("p", {}, quoted, said));
  };
  const place = async (row, column) => {
    if (at && at[0] === row && at[1] === column) return;
    at = [row, column];
    const mine = ++wanted;
    const photo = one(".photo");
    photo.classList.remove("pointing");
    all(".photo .cell, .photo .of-word").forEach((node) => node.remove());
    const [rows, columns] = [+tools.dataset.rows, +tools.dataset.columns];
    const cell = make("i", { className: "cell" });
    Object.assign(cell.style, { left: `${column / columns * 100}%`, top: `${row / rows * 100}%`, width: `${100 / columns}%`, height: `${100 / rows}%` });
    photo.append(cell);
    await new Promise((done) => setTimeout(done, 70));
    if (mine !== wanted) return;
    const found = await remember(`${card}/place${asked({ row, column })}`).catch((error) => ({ error: error.message }));
    if (mine !== wanted) return;
    if (found.box) {
      const [left, top, right, bottom] = found.box.map((value) => value * 100);
      Object.assign(cell.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    }
    if (found.error) return panel().replaceChildren(make("p", {}, `No answer: ${found.error}. Try again.`));
    const named = found.unit;
    const parts = found.like.map((near) => make("li", { title: near.image },
      make("img", { src: near.patch, alt: `Patch of ${near.image}` }),
      make("span", {}, near.label),
      ...(near.channel === null ? [near.similarity.toFixed(2)] : [percent(near.similarity), `${named} ${near.channel}`]).map((line) => make("small", {}, line))));
    const how = found.method === null ? ". There are no pictures to compare with."
      : !parts.length ? `. None of the ${named}s shown is active here.`
      : found.like[0].channel === null ? ". It looks like"
      : `. ${named[0].toUpperCase()}${named.slice(1)}s active here, each as a share of its own peak on this picture:`;
    const said = make("p", {}, "This place: ", make("b", {}, percent(found.share)), " of the evidence for ", make("b", {}, target()), how);
    panel().replaceChildren(said, make("ul", {}, ...parts));
  };
  document.addEventListener("mouseover", (event) => {
    const row = event.target.closest("#words tbody tr");
    if (row) word(row);
  });
  document.addEventListener("focusin", (event) => {
    const row = event.target.closest("#words tbody tr");
    if (row) word(row);
  });
  document.addEventListener("click", (event) => {
    const row = event.target.closest("#words tbody tr");
    if (row && !event.target.closest("a")) word(row);
  });
  for (const away of ["mouseout", "focusout"]) document.addEventListener(away, (event) => {
    const from = event.target.closest("#words tbody tr, .photo");
    if (from && !from.contains(event.relatedTarget)) clear();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") clear(); });
  const pointAt = (event) => {
    const photo = event.target.closest(".photo");
    if (!photo) return;
    const box = photo.getBoundingClientRect();
    const [rows, columns] = [+tools.dataset.rows, +tools.dataset.columns];
    const inside = (value, most) => Math.min(Math.max(Math.floor(value * most), 0), most - 1);
    place(inside((event.clientY - box.top) / box.height, rows), inside((event.clientX - box.left) / box.width, columns));
  };
  document.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") pointAt(event); });
  document.addEventListener("pointerdown", pointAt);
  document.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !event.target.matches?.(".photo")) return;
    event.preventDefault();
    const most = [+tools.dataset.rows - 1, +tools.dataset.columns - 1];
    const from = at ?? most.map((value) => Math.round(value / 2));
    const [row, column] = [0, 1].map((axis) => Math.min(Math.max(from[axis] + (at ? step[axis] : 0), 0), most[axis]));
    place(row, column);
  });

  /* words, as they are typed */
  const form = one("form.words");
  let timer = 0;
  let sent = 0;
  const take = async () => {
    const mine = ++sent;
    const moved = one("#moved");
    try {
      const answer = await fetch(`${form.action}?format=json`, { method: "POST", body: new URLSearchParams(new FormData(form)) });
      const said = await answer.json();
      if (mine !== sent) return;
      if (!answer.ok) throw new Error(said.error);
      known.clear();
      await swap(`${card}${asked()}`, [...evidence, ".picture", "#moved"]);
      document.head.append(make("script", { src: "/card.js" }));
      ready();
      if (tools.dataset.measure === "yes") measure();
    } catch (error) {
      if (mine === sent) moved.replaceChildren(make("p", { className: "wrong" }, error.message));
    }
  };
  form?.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(take, 400);
  });
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    take();
  });

  ready();
  measure();
})();
