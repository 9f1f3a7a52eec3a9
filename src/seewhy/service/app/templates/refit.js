"use strict";
// Starts work in the background and follows it; the page is loaded again when it is done.
(() => {
  const box = document.getElementById("refit");
  if (!box) return;
  const at = box.dataset.at ?? "/refit";
  const [button, told, bar] = ["refit-start", "refit-told", "refit-step"].map((id) => document.getElementById(id));
  const show = (state) => {
    button.disabled = Boolean(state.running);
    bar.hidden = !state.running;
    if (state.running) {
      bar.max = state.running.of;
      bar.value = state.running.done;
      told.value = `${state.running.what}: ${state.running.done} of ${state.running.of}`;
    } else told.value = state.problem ?? "";
  };
  async function follow() {
    try {
      const answer = await fetch(`${at}/state`);
      const state = await answer.json();
      show(state);
      if (!state.running && !state.done && !state.problem) told.value = "The server was started again, so this result is lost. Start it again.";
      if (state.running) setTimeout(follow, 700);
      else if (state.done && !state.problem) location.reload();
    } catch {
      told.value = "The server does not answer. Is seewhy app still running?";
      setTimeout(follow, 3000);
    }
  }
  button.addEventListener("click", async () => {
    button.disabled = true;
    told.value = "Starting…";
    try {
      const answer = await fetch(`${at}/start?format=json`, { method: "POST" });
      const data = await answer.json();
      if (answer.ok) { follow(); return; }
      told.value = data.error;
    } catch {
      told.value = "The server does not answer. Is seewhy app still running?";
    }
    button.disabled = false;
  });
  if (box.dataset.running === "yes") follow();
})();
