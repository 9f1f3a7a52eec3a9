"use strict";
// Sends each decision at once; the server has it on its disk before this page says so, and tells what others decided.
(() => {
  const who = document.getElementById("who");
  const rows = [...document.querySelectorAll(".decide")];
  const words = { corrected: "Corrected to", confirmed: "Confirmed as", later: "Put off", dropped: "Left out", open: "Undone" };
  let states = {};
  try { who.value = localStorage.getItem("seewhy name") ?? ""; } catch { /* forbidden: it is typed again */ }
  who.addEventListener("change", () => { try { localStorage.setItem("seewhy name", who.value); } catch { /* as above */ } });

  const show = (row) => {
    const state = states[row.dataset.key];
    const stands = state && state.decision !== "open";
    const at = row.querySelector("output");
    at.className = "";
    at.value = !state ? "" : `${words[state.decision]}${["corrected", "confirmed"].includes(state.decision) ? ` ${state.label}` : ""} by ${state.author}.`;
    row.querySelector("[value=undo]").hidden = !stands;
    row.closest("li").classList.toggle("decided", Boolean(stands));
  };
  const showAll = () => {
    rows.forEach(show);
    const keys = new Set(rows.map((row) => row.dataset.key));
    const done = [...keys].filter((key) => states[key] && !["open", "later"].includes(states[key].decision)).length;
    document.getElementById("progress").value = `${done} of ${keys.size} decided`;
  };
  const fail = (row, text) => { const at = row.querySelector("output"); at.className = "bad"; at.value = text; };

  async function send(row, decision) {
    if (!who.value.trim()) { fail(row, "Type your name above first."); who.focus(); return; }
    const key = row.dataset.key;
    const body = { author: who.value, base: states[key]?.number ?? 0 };
    if (decision !== "undo") Object.assign(body, { decision, label: row.querySelector(".label").value, given: row.dataset.given });
    try {
      const answer = await fetch(`/${decision === "undo" ? "undo" : "decide"}/${key}?format=json`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
      const data = await answer.json();
      if (answer.ok || data.state) states[key] = data.state ?? data;
      showAll();
      if (!answer.ok) fail(row, data.error);
    } catch {
      fail(row, "Not kept: the server does not answer. Try again.");
    }
  }

  async function refresh() {
    try {
      const answer = await fetch("/decisions");
      const found = answer.ok ? await answer.json() : states;
      if (JSON.stringify(found) !== JSON.stringify(states)) { states = found; showAll(); }
    } catch { /* the next one may be answered */ }
  }

  for (const row of rows) row.addEventListener("click", (event) => { if (event.target.value && event.target.tagName === "BUTTON") send(row, event.target.value); });
  showAll();
  refresh();
  setInterval(refresh, 4000);
})();
