(() => {
  const bar = document.querySelector(".tools");
  const list = document.querySelector(".cards");
  if (!bar || !list) return;
  const cards = [...list.children];
  const sort = bar.querySelector("#sort");
  const filter = bar.querySelector("#class");
  const outcome = bar.querySelector("#outcome");
  const count = bar.querySelector("output");
  const show = () => {
    let shown = 0;
    for (const card of cards) {
      card.hidden = filter.value !== "" && card.dataset.label !== filter.value
        || outcome.value !== "" && !card.dataset.outcome.split("|").includes(outcome.value);
      shown += !card.hidden;
    }
    cards.sort((a, b) => a.dataset[sort.value] - b.dataset[sort.value]);
    list.append(...cards);
    count.value = shown === cards.length ? "" : `${shown} of ${cards.length} shown`;
  };
  bar.hidden = false;
  bar.addEventListener("input", show);
  show();
})();
