"use strict";
(() => {
  const form = document.getElementById("judging");
  if (!form) return;
  const state = JSON.parse(document.getElementById("state").textContent), status = document.getElementById("status");
  const began = Date.now();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answers = Object.fromEntries([...new FormData(form)].map(([name, score]) => [name, Number(score)]));
    const body = { author: state.author, answers, token: state.pair.token, seconds: Math.round((Date.now() - began) / 1000) };
    try {
      const answer = await fetch(`/judge/${state.key}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
      const data = await answer.json();
      status.textContent = answer.ok ? "Saved. Thank you." : data.error;
      status.className = `status ${answer.ok ? "good" : "bad"}`;
    } catch {
      status.textContent = "Not saved: the server does not answer. Try again when it is back.";
      status.className = "status bad";
    }
  });
})();
