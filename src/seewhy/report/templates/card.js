(() => {
  const control = document.querySelector(".control");
  const heat = document.querySelector(".photo .heat");
  if (!control || !heat) return;
  const slider = control.querySelector("input");
  const show = () => { heat.style.opacity = slider.value / 100; };
  control.hidden = false;
  slider.addEventListener("input", show);
  show();
})();
