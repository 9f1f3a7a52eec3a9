"use strict";
// The heat of one picture: asked for when the pointer or the focus rests on it, given up when that moves on.
globalThis.Heat = class {
  constructor(show) {
    this.show = show;
    this.of = -1;
  }
  rest(i) {
    if (i === this.of) return;
    this.of = i;
    clearTimeout(this.late);
    this.asking?.abort();
    if (i >= 0) this.late = setTimeout(() => this.ask(i), 250);
  }
  async ask(i) {
    this.asking = new AbortController();
    let [address, message] = ["", ""];
    try {
      const answer = await fetch(`/heat/${i}?format=json`, { signal: this.asking.signal });
      if (answer.status === 200) address = URL.createObjectURL(await answer.blob());
      else if (answer.status === 503 && i === this.of) { this.late = setTimeout(() => this.ask(i), 2000); return; }
      else if (!answer.ok) message = (await answer.json()).error;
    } catch (error) {
      if (error.name === "AbortError") return;
      message = "The server does not answer. Is seewhy app still running?";
    }
    this.show(i, address, message);
  }
};
