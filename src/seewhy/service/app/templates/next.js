"use strict";
// Labels the pictures of the list, one by one or several at once; downloads a selection; opens a class in the grid.
(() => {
  const data = document.getElementById("changed").dataset.of; // the pictures that the numbers mean
  document.addEventListener("click", (event) => {
    const wrong = event.target.closest?.("a[data-wrong]")?.dataset.wrong;
    if (wrong === undefined) return;
    try { sessionStorage.setItem("seewhy selection", `{"data": "${data}", "places": [${wrong}]}`); } catch { /* forbidden: the grid opens without it */ }
  });
  const list = document.querySelector(".to-label");
  if (!list) return;
  const [every, who, label, told] = ["every", "who", "new-label", "told"].map((id) => document.getElementById(id));
  const boxes = () => [...list.querySelectorAll("input:not(:disabled)")];
  const selected = () => boxes().filter((box) => box.checked).map((box) => Number(box.value));
  const tell = () => {
    const n = selected().length;
    every.checked = n > 0 && n === boxes().length;
    every.indeterminate = n > 0 && !every.checked;
    told.value = n ? `${n} selected` : "";
  };
  every.addEventListener("change", () => { for (const box of boxes()) box.checked = every.checked; tell(); });
  list.addEventListener("change", tell);
  document.getElementById("list").addEventListener("click", () => {
    const places = selected();
    if (places.length) location.href = `/selection.csv?places=${places.join(",")}`;
    else told.value = "Select some pictures first.";
  });
  if (!who) return;

  try { who.value = localStorage.getItem("seewhy name") ?? ""; } catch { /* forbidden: it is typed again */ }
  who.addEventListener("change", () => { try { localStorage.setItem("seewhy name", who.value); } catch { /* as above */ } });
  const numbers = new Map();  // picture → the number of the decision that was seen
  for (const item of list.children) numbers.set(Number(item.dataset.index), Number(item.dataset.number));
  const words = { changed: (name) => name, left_out: () => "left out", undo: () => "undone" };

  async function decide(decision, name, places) {
    if (!who.value.trim()) { told.value = "Type your name first."; who.focus(); return; }
    if (!places.length) { told.value = "Select some pictures first."; return; }
    if (decision === "changed" && !name) { told.value = "Type the label first."; label.focus(); return; }
    const bases = Object.fromEntries(places.map((i) => [i, numbers.get(i)]));
    const body = JSON.stringify({ author: who.value.trim(), decision, label: name, places, bases, data });
    try {
      const answer = await fetch("/decide-many?format=json", { method: "POST", headers: { "content-type": "application/json" }, body });
      const done = await answer.json();
      if (!answer.ok) { told.value = done.error; return; }
      const refused = new Map(done.refused.map((one) => [one.index, one.error]));
      for (const i of places) {
        const item = list.querySelector(`[data-index="${i}"]`);
        numbers.set(i, done.numbers[i] ?? numbers.get(i));
        item.querySelector("output").value = refused.get(i) ?? words[decision](name);
        item.classList.toggle("done", !refused.has(i) && decision !== "undo");
        for (const button of item.querySelectorAll("button")) button.setAttribute("aria-pressed", !refused.has(i) && decision === "changed" && button.value === name);
        item.querySelector("input").checked = false;
      }
      tell();
      const n = list.querySelectorAll(".done").length;
      told.value = `${done.saved} saved. ${n === list.children.length ? "Reload the page for the next pictures." : ""}`;
    } catch {
      told.value = "Not saved: the server does not answer. Is seewhy app still running?";
    }
  }
  document.querySelector("#label .selection").addEventListener("click", (event) => {
    const decision = event.target.value;
    if (event.target.tagName === "BUTTON" && decision in words) decide(decision, decision === "changed" ? label.value.trim() : "", selected());
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) decide("changed", button.value, [Number(button.closest("li").dataset.index)]);
  });
})();
