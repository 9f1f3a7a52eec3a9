"use strict";
(() => {
  const desk = window.SeeWhyDesk, $ = (id) => document.getElementById(id);
  const names = desk.state.attributes.map(([name]) => name);
  const photo = $("photo"), layer = $("boxes"), list = $("things");
  const past = [], undone = [];
  let things = [], chosen = null, ticked = new Set();

  const copy = (value) => JSON.parse(JSON.stringify(value));
  const round = (v) => Math.round(Math.min(1, Math.max(0, v)) * 1e5) / 1e5;
  const fresh = () => `o${Date.now().toString(36)}${Math.floor(Math.random() * 1e6).toString(36)}`;
  const stacks = () => { $("undo").disabled = past.length === 0; $("redo").disabled = undone.length === 0; };
  const remember = (before = copy(things)) => { past.push(before); if (past.length > 100) past.shift(); undone.length = 0; stacks(); };
  // Redo restores what was undone, so that words typed into a box are not lost with it.
  const travel = (from, to) => { if (!from.length) return; to.push(copy(things)); things = from.pop(); chosen = null; draw(); desk.typed(); };
  const find = (id) => things.find((o) => o.id === id);

  function make(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  function place(node, box) {
    const [l, t, r, b] = box.map((v) => v * 100);
    Object.assign(node.style, { left: `${l}%`, top: `${t}%`, width: `${r - l}%`, height: `${b - t}%` });
  }

  function choose(id, focus) {
    chosen = id;
    for (const node of [...layer.children, ...list.children]) node.classList.toggle("chosen", node.dataset.id === id);
    if (focus) layer.querySelector(`[data-id="${CSS.escape(id)}"]`)?.focus();
  }

  function draw() {
    layer.replaceChildren(...things.map((o, i) => {
      const box = make("button", { type: "button", className: "box" }, make("i", { textContent: i + 1 }), make("u"));
      box.dataset.id = o.id;
      box.setAttribute("aria-label", `Box ${i + 1}: ${o.label || "no label"}`);
      place(box, o.box);
      box.addEventListener("focus", () => choose(o.id));
      return box;
    }));
    list.replaceChildren(...things.map(row));
    $("none").hidden = things.length > 0;
    ticked = new Set([...ticked].filter(find));
    $("merge").disabled = ticked.size < 2;
    stacks();
    if (chosen) choose(chosen);
  }

  function row(o, i) {
    const li = make("li");
    li.dataset.id = o.id;
    const tick = make("input", { type: "checkbox", checked: ticked.has(o.id) });
    tick.setAttribute("aria-label", `Tick object ${i + 1} to merge`);
    tick.addEventListener("change", () => { ticked[tick.checked ? "add" : "delete"](o.id); $("merge").disabled = ticked.size < 2; });
    const label = make("input", { type: "text", value: o.label, maxLength: 200, placeholder: "What is it?" });
    label.setAttribute("aria-label", `Label of object ${i + 1}`);
    label.addEventListener("input", () => {
      o.label = label.value;
      layer.querySelector(`[data-id="${CSS.escape(o.id)}"]`).setAttribute("aria-label", `Box ${i + 1}: ${o.label || "no label"}`);
      desk.typed();
    });
    const remove = make("button", { type: "button", className: "plain", textContent: "Delete" });
    remove.setAttribute("aria-label", `Delete object ${i + 1}`);
    remove.addEventListener("click", () => drop(o.id));
    const words = make("textarea", { value: o.description, rows: 3, maxLength: 20000, placeholder: "How does it look?" });
    words.setAttribute("aria-label", `Description of object ${i + 1}`);
    words.addEventListener("input", () => { o.description = words.value; desk.typed(); });
    const summary = make("summary");
    const counted = () => { summary.textContent = `Attributes checked: ${o.attributes.length} of ${names.length}`; };
    counted();
    const ticks = desk.state.attributes.map(([name, question]) => {
      const input = make("input", { type: "checkbox", checked: o.attributes.includes(name) });
      input.addEventListener("change", () => {
        o.attributes = names.filter((a) => (a === name ? input.checked : o.attributes.includes(a)));
        counted();
        desk.typed();
      });
      return make("label", { title: question }, input, ` ${name}`);
    });
    li.append(
      make("div", { className: "row-head" }, tick, make("span", { className: "letter", textContent: i + 1 }), label, remove),
      words, make("details", {}, summary, make("fieldset", { className: "ticks-list" }, make("legend", { className: "unseen", textContent: `Attributes of object ${i + 1}` }), ...ticks)));
    li.addEventListener("focusin", () => choose(o.id));
    return li;
  }

  function add(box) {
    remember();
    const o = { id: fresh(), label: "", box: box.map(round), description: "", attributes: [] };
    things.push(o);
    chosen = o.id;
    draw();
    desk.typed();
    list.lastElementChild.querySelector("input[type=text]").focus();
  }

  function drop(id) {
    remember();
    things = things.filter((o) => o.id !== id);
    chosen = null;
    draw();
    desk.typed();
    $("undo").focus();
  }

  function merge() {
    const group = things.filter((o) => ticked.has(o.id));
    if (group.length < 2) return;
    remember();
    const [first, ...rest] = group;
    const side = (pick, k) => pick(...group.map((o) => o.box[k]));
    first.box = [side(Math.min, 0), side(Math.min, 1), side(Math.max, 2), side(Math.max, 3)];
    first.label = [...new Set(group.map((o) => o.label).filter(Boolean))].join(" and ").slice(0, 200);
    first.description = group.map((o) => o.description.trim()).filter(Boolean).join(" ").slice(0, 20000);
    first.attributes = names.filter((a) => group.some((o) => o.attributes.includes(a)));
    things = things.filter((o) => !rest.includes(o));
    ticked.clear();
    draw();
    choose(first.id, true);
    desk.typed();
  }

  function move(o, dx, dy, sizes) {
    let [l, t, r, b] = o.box;
    if (sizes) {
      r = Math.min(1, Math.max(l + 0.01, r + dx));
      b = Math.min(1, Math.max(t + 0.01, b + dy));
    } else {
      dx = Math.min(1 - r, Math.max(-l, dx));
      dy = Math.min(1 - b, Math.max(-t, dy));
      [l, t, r, b] = [l + dx, t + dy, r + dx, b + dy];
    }
    o.box = [l, t, r, b].map(round);
    place(layer.querySelector(`[data-id="${CSS.escape(o.id)}"]`), o.box);
  }

  const at = (event) => {
    const frame = photo.getBoundingClientRect();
    return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
  };

  photo.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    const node = event.target.closest(".box"), from = at(event);
    const o = node && find(node.dataset.id), sizes = event.target.tagName === "U";
    const before = copy(things);
    let [x, y] = from, moved = false, ghost = null;
    if (o) choose(o.id, true);
    photo.setPointerCapture(event.pointerId);
    const go = (next) => {
      const [nx, ny] = at(next);
      if (!moved && Math.hypot(nx - from[0], ny - from[1]) < 0.008) return;
      moved = true;
      if (o) move(o, nx - x, ny - y, sizes);
      else {
        ghost ||= layer.appendChild(make("span", { className: "box still" }));
        place(ghost, [Math.min(from[0], nx), Math.min(from[1], ny), Math.max(from[0], nx), Math.max(from[1], ny)].map(round));
      }
      [x, y] = [nx, ny];
    };
    const stop = (last) => {
      photo.removeEventListener("pointermove", go);
      photo.removeEventListener("pointerup", stop);
      photo.removeEventListener("pointercancel", stop);
      ghost?.remove();
      if (!moved || last.type === "pointercancel") return;
      if (o) { remember(before); desk.typed(); return; }
      const box = [Math.min(from[0], x), Math.min(from[1], y), Math.max(from[0], x), Math.max(from[1], y)].map(round);
      if (box[2] - box[0] > 0.01 && box[3] - box[1] > 0.01) add(box);
    };
    photo.addEventListener("pointermove", go);
    photo.addEventListener("pointerup", stop);
    photo.addEventListener("pointercancel", stop);
  });

  layer.addEventListener("keydown", (event) => {
    const o = find(event.target.dataset?.id);
    const step = { ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, -0.01], ArrowDown: [0, 0.01] }[event.key];
    if (!o || event.ctrlKey || event.metaKey) return;
    if (step) { if (!event.repeat) remember(); move(o, ...step, event.shiftKey); desk.typed(); }
    else if (event.key === "Delete" || event.key === "Backspace") drop(o.id);
    else if (event.key === "Enter") list.querySelector(`[data-id="${CSS.escape(o.id)}"] textarea`).focus();
    else return;
    event.preventDefault();
  });

  $("add").addEventListener("click", () => add([0.35, 0.35, 0.65, 0.65]));
  $("merge").addEventListener("click", merge);
  $("undo").addEventListener("click", () => travel(past, undone));
  $("redo").addEventListener("click", () => travel(undone, past));
  desk.begin(() => ({ objects: copy(things) }), (content) => { things = copy(content.objects); draw(); });
})();
