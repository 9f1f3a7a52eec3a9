"use strict";
// Saves what is typed: in this browser at once, on the server a moment later, and tries until it succeeds.
window.SeeWhyDesk = (() => {
  const state = JSON.parse(document.getElementById("state").textContent);
  const $ = (id) => document.getElementById(id);
  const mirror = `seewhy ${state.key} ${state.task} ${state.author}`;
  const tab = [...crypto.getRandomValues(new Uint8Array(9))].map((b) => b.toString(16).padStart(2, "0")).join("");
  const IDLE_MS = 600, LONGEST_MS = 1500, RETRY_MS = 1000, ACTIVE_MS = 30000;
  let read = () => state.content, write = () => {};
  let base = state.base, seen = state.revision, seconds = state.seconds, merges = false;
  let sequence = 0, dirty = false, sending = false, saving = false, first = 0, timer = 0, active = 0, ended = false;

  const say = (text, kind = "") => { const at = $("status"); at.textContent = text; at.className = `status ${kind}`; };
  const ask = (path, body) => fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const reason = async (answer) => { try { return (await answer.json()).error; } catch { return `the server answered with status ${answer.status}`; } };
  const message = () => ({ author: state.author, content: read(), base, seconds, seen, tab, sequence: ++sequence });

  const keepHere = () => {
    try { localStorage.setItem(mirror, JSON.stringify({ content: read(), base, seconds })); } catch { /* full or forbidden: the server keeps it */ }
  };
  const forgetHere = () => { try { localStorage.removeItem(mirror); } catch { /* as above */ } };

  const later = (ms) => { clearTimeout(timer); timer = setTimeout(send, ms); };
  const typed = () => {
    active = Date.now();
    ended = false;
    if (!dirty) first = active;
    dirty = true;
    keepHere();
    say("…");
    later(Math.max(0, Math.min(IDLE_MS, first + LONGEST_MS - Date.now())));
  };

  async function send() {
    if (!dirty || sending || saving) return;
    sending = true;
    dirty = false;
    try {
      const answer = await ask(`/draft/${state.key}/${state.task}`, message());
      if (!answer.ok) {
        dirty = true;
        say(`Not saved: ${await reason(answer)}`, "bad");
        return;
      }
      const kept = await answer.json();
      seen = kept.revision;
      if (!dirty) {
        forgetHere();
        say(kept.shelved ? "Saved. You had also typed in another window: that text is below, under Your earlier drafts." : "Saved.", "good");
      }
    } catch {
      dirty = true;
      say("Not saved yet: the server does not answer. Your words are safe in this browser. The page tries again.", "bad");
      later(RETRY_MS);
    } finally {
      sending = false;
      if (dirty) later(RETRY_MS);
    }
  }

  // A page that goes away cannot wait for an answer.
  const leaving = () => {
    if (!dirty && !sending) return;
    keepHere();
    navigator.sendBeacon(`/draft/${state.key}/${state.task}`, new Blob([JSON.stringify(message())], { type: "application/json" }));
  };

  async function save() {
    if (saving) return;
    saving = true;
    clearTimeout(timer);
    keepHere();
    try {
      while (sending) await new Promise((done) => setTimeout(done, 50));
      const sent = JSON.stringify(read());
      const answer = await ask(`/save/${state.key}/${state.task}`, { author: state.author, content: JSON.parse(sent), base, seconds, merges });
      if (answer.status === 409) { clash(await answer.json(), sent); return; }
      if (!answer.ok) { say(`Not saved: ${await reason(answer)}`, "bad"); return; }
      const done = await answer.json();
      base = done.number;
      seen = 0;
      seconds = 0;
      merges = false;
      $("clash").hidden = true;
      ended = true;
      dirty = JSON.stringify(read()) !== sent;
      if (!dirty) forgetHere();
      say(`Your round is saved as version ${done.number}.${done.finished ? ` This text is finished. ${done.finished}` : ""}`, "good");
    } catch {
      dirty = true;
      say("Not saved: the server does not answer. Your words are safe in this browser. Finish again when the server is back.", "bad");
    } finally {
      saving = false;
      if (dirty) later(RETRY_MS);
    }
  }

  // Someone else was faster. Nothing is overwritten: both texts come together here, and a person looks at it.
  function clash(answer, sent) {
    const since = JSON.stringify(read()) !== sent;
    if (since) { say("You typed more in the meantime. Finish your round again.", "bad"); dirty = true; return; }
    base = answer.latest.number;
    seen = answer.revision;
    merges = true;
    write(answer.merged);
    $("clash-title").textContent = answer.error;
    $("clash-said").textContent = answer.clash
      ? "You both changed the same place, so the text now contains both wordings. Choose one, then finish your round again. Your own wording is also below, under Your earlier drafts."
      : "The text now contains your changes and theirs. Read it, then finish your round again.";
    showDiff($("clash-diff"), answer.changes);
    shelf([...state.shelved, { made: new Date().toISOString(), text: textOf(JSON.parse(sent)) }]);
    $("clash").hidden = false;
    $("clash").focus();
    typed();
    say("Not saved yet: somebody saved a newer version. Read the notice below.", "bad");
  }

  const textOf = (content) => content.text ?? content.objects.map((o) => `${o.label}: ${o.description}`).join("\n");
  const showDiff = (at, parts) => at.replaceChildren(...parts.map(([kind, text]) => {
    const node = document.createElement({ same: "span", added: "ins", removed: "del" }[kind]);
    node.textContent = text;
    return node;
  }));
  const shelf = (drafts) => {
    $("shelf").hidden = drafts.length === 0;
    $("shelved").replaceChildren(...drafts.map((d) => { const li = document.createElement("li"); li.textContent = d.text || "(empty)"; return li; }));
  };

  async function again() {
    if (!confirm("Start again from the last version? You can still read your draft below.")) return;
    while (sending) await new Promise((done) => setTimeout(done, 50));
    try {
      if (dirty) await ask(`/draft/${state.key}/${state.task}`, message());
      const answer = await ask(`/aside/${state.key}/${state.task}`, { author: state.author });
      if (!answer.ok) { say(`Not started again: ${await reason(answer)}`, "bad"); return; }
      Object.assign(state, await answer.json());
      [base, seen, seconds, dirty] = [state.base, state.revision, state.seconds, false];
      forgetHere();
      write(state.content);
      shelf(state.shelved);
      say("You start from the last version.", "good");
    } catch { say("The server does not answer. Nothing was changed.", "bad"); }
  }

  function begin(reader, writer) {
    read = reader;
    write = writer;
    let unsent = null;
    try { unsent = JSON.parse(localStorage.getItem(mirror)); } catch { /* nothing readable */ }
    if (unsent && JSON.stringify(unsent.content) !== JSON.stringify(state.content)) {
      base = unsent.base;
      seconds = Math.max(seconds, unsent.seconds);
      write(unsent.content);
      typed();
      say("Your unsaved text is back.", "good");
    } else {
      write(state.content);
      if (state.is_draft) say("This is your draft.", "good");
    }
    shelf(state.shelved);
    $("save").addEventListener("click", save);
    $("again").addEventListener("click", again);
    addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save(); } });
    addEventListener("focusout", () => { if (dirty) later(0); });
    addEventListener("pagehide", leaving);
    document.addEventListener("visibilitychange", () => { if (document.hidden) leaving(); });
    for (const kind of ["pointerdown", "pointermove", "keydown", "scroll"]) addEventListener(kind, () => { active = Date.now(); }, { passive: true });
    setInterval(() => { if (!document.hidden && !ended && Date.now() - active < ACTIVE_MS) seconds += 1; }, 1000);
  }

  return { state, begin, typed, ask, say };
})();

(() => {
  const text = document.getElementById("text");
  if (!text) return;
  const desk = window.SeeWhyDesk;
  let waiting = 0;
  const count = () => { const n = text.value.split(/\s+/).filter(Boolean).length; document.getElementById("count").textContent = `${n} word${n === 1 ? "" : "s"}`; };
  const check = async () => {
    try {
      const answer = await desk.ask(`/covered/${desk.state.key}`, { text: text.value });
      if (!answer.ok) return;
      for (const one of (await answer.json()).objects) {
        const row = document.querySelector(`[data-object="${CSS.escape(one.id)}"]`);
        if (!row) continue;
        const mark = row.querySelector(".state");
        mark.textContent = one.named ? "named" : "not in your text";
        mark.className = `state ${one.named ? "yes" : "no"}`;
        row.querySelector(".missing-words").textContent = one.missing.length ? `Not in your text: ${one.missing.join(", ")}` : "";
      }
    } catch { /* the next check will do */ }
  };
  const changed = () => { count(); clearTimeout(waiting); waiting = setTimeout(check, 700); };
  text.addEventListener("input", () => { desk.typed(); changed(); });
  document.getElementById("show-boxes").addEventListener("change", (event) => { document.getElementById("boxes").hidden = !event.target.checked; });
  desk.begin(() => ({ text: text.value }), (content) => { text.value = content.text; count(); });
  check();
})();
