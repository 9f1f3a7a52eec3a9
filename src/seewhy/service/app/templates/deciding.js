"use strict";
// Sends each decision at once. The server saves it before this page says so, and reports what others decided.
// The list may be redrawn at any time: this script keeps what a person typed or was told, by picture, and restores it.
(() => {
  const who = document.getElementById("who");
  if (!who) return;
  const states = {};
  const [typed, problems, pending] = [new Map(), new Map(), new Set()];
  try { who.value = localStorage.getItem("seewhy name") ?? ""; } catch { /* forbidden: it is typed again */ }
  who.addEventListener("change", () => { try { localStorage.setItem("seewhy name", who.value); } catch { /* as above */ } });

  const all = () => [...document.querySelectorAll(".decide")];
  const id = (row) => `${row.dataset.key} ${row.dataset.given}`;
  const number = (row) => states[row.dataset.key]?.number ?? 0;
  const put = (at, key, value) => { if (at[key] !== value) at[key] = value; };

  const settled = (state) => Boolean(state) && !["undecided", "postponed"].includes(state.decision);
  const say = (row, state) => {
    if (!state) return "";
    const label = { changed: ` to ${state.label}`, kept: ` as ${state.label}` }[state.decision] ?? "";
    const word = state.decision === "undecided" ? "Undone" : state.decision[0].toUpperCase() + state.decision.slice(1).replace("_", " ");
    const where = state.given === row.dataset.given ? "" : `, for the label ${state.given}`;
    return `${word}${label} by ${state.author}${where}.`;
  };
  const show = (row) => {
    const state = states[row.dataset.key];
    const stands = Boolean(state) && state.decision !== "undecided";
    const problem = problems.get(id(row));
    const heard = problem?.number === number(row);
    const at = row.querySelector("output");
    put(at, "className", heard ? "bad" : "");
    put(at, "value", heard ? problem.text : say(row, state));
    const undo = row.querySelector("[value=undo]");
    if (!stands && document.activeElement === undo) row.querySelector("button").focus();
    put(undo, "hidden", !stands);
    row.closest("li").classList.toggle("decided", settled(state));
    if (typed.has(id(row))) put(row.querySelector(".label"), "value", typed.get(id(row)));
    name(row);
  };
  // The button says what it would write.
  const name = (row) => {
    const [button, label] = [row.querySelector(".typed"), row.querySelector(".label").value.trim()];
    put(button, "disabled", !label);
    put(button.lastElementChild, "textContent", label || "…");
  };
  const showAll = () => {
    const rows = all();
    rows.forEach(show);
    const keys = new Set(rows.map((row) => row.dataset.key));
    const done = [...keys].filter((key) => settled(states[key])).length;
    put(document.getElementById("decided"), "value", keys.size ? `${done} of ${keys.size} on this page decided` : "");
  };
  // An answer that was on its way when something was decided must not hide that: numbers only grow.
  const learn = (found) => {
    for (const [key, state] of Object.entries(found)) if (state.number >= (states[key]?.number ?? 0)) states[key] = state;
  };

  async function send(row, decision, label = "") {
    const { key, given } = row.dataset;
    const [here, fail] = [id(row), (text) => problems.set(id(row), { text, number: number(row) })];
    if (pending.has(key)) return;
    problems.delete(here);
    if (!who.value.trim()) { fail("Type your name above first."); showAll(); who.focus(); return; }
    const body = { author: who.value, base: number(row) };
    if (decision !== "undo") Object.assign(body, { decision, label, given });
    pending.add(key);
    try {
      const answer = await fetch(`/${decision === "undo" ? "undo" : "decide"}/${key}?format=json`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
      const data = await answer.json();
      if (answer.ok || data.state) learn({ [key]: data.state ?? data });
      if (!answer.ok) fail(data.error);
    } catch {
      fail("Not saved: the server does not answer. Try again.");
    }
    pending.delete(key);
    showAll();
  }

  async function refresh() {
    try {
      const answer = await fetch("/decisions");
      if (answer.ok) { learn(await answer.json()); showAll(); }
    } catch { /* the next one may be answered */ }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".decide button");
    if (!button) return;
    const row = button.closest(".decide");
    send(row, button.value, button.dataset.label ?? row.querySelector(".label").value);
  });
  document.addEventListener("input", (event) => {
    if (!event.target.matches(".decide .label")) return;
    const row = event.target.closest(".decide");
    typed.set(id(row), event.target.value);
    name(row);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.target.matches(".decide .label")) return;
    event.preventDefault();
    if (event.target.value.trim()) send(event.target.closest(".decide"), "changed", event.target.value);
  });
  document.addEventListener("listed", showAll);
  showAll();
  refresh();
  setInterval(refresh, 4000);
})();
