/* in the frame of a notebook: reports the height of the page, and applies the theme of the notebook */
{
  const root = document.documentElement;
  const tell = () => parent.postMessage({ seewhyHeight: Math.ceil(root.getBoundingClientRect().height) }, "*");
  const dark = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]).map((rule) => rule.media)
    .filter((media) => media && media.mediaText.includes("color-scheme: dark"));
  new ResizeObserver(tell).observe(root);
  addEventListener("message", (event) => {
    if (event.data && "seewhyDark" in event.data) {
      for (const media of dark) media.mediaText = event.data.seewhyDark ? "all" : "not all";
      root.style.colorScheme = event.data.seewhyDark ? "dark" : "light";
    }
    tell();
  });
}
