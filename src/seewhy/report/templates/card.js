(() => {
  const control = document.querySelector(".control");
  const heat = document.querySelector(".photo .heat");
  if (control && heat) {
    const slider = control.querySelector("input");
    const show = () => { heat.style.opacity = slider.value / 100; };
    control.hidden = false;
    slider.addEventListener("input", show);
    show();
  }
  /* a term opens its definition where it stands; without this script, its link opens the list at the end */
  const root = document.documentElement;
  if (root.dataset.defines) return;
  root.dataset.defines = "yes";
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.def");
    const meaning = link && document.querySelector(`${link.getAttribute("href")} dd`);
    if (!meaning) return;
    event.preventDefault();
    const open = link.nextElementSibling?.className === "meaning";
    document.querySelectorAll(".meaning").forEach((node) => node.remove());
    document.querySelectorAll("a.def[aria-expanded]").forEach((node) => node.removeAttribute("aria-expanded"));
    if (open) return;
    const note = document.createElement("span");
    note.className = "meaning";
    note.setAttribute("role", "note");
    note.textContent = meaning.textContent;
    link.setAttribute("aria-expanded", "true");
    link.after(note);
  });
})();
