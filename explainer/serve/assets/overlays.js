// Lays masks over the photograph. The server sends each mask once, as a grey picture; what opacity and threshold do to
// it is worked out here, so that a slider answers at once.
"use strict";

const overlays = (() => {
  const settings = { opacity: 0.65, threshold: 0 };

  async function pixels(address, width, height) {
    const picture = new Image();
    picture.src = address;
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }

  // As Pillow makes a picture grey.
  const grey = (red, green, blue) => (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;

  function draw(canvas) {
    const { photograph, mask, colours } = canvas.overlay;
    const least = Math.round(settings.threshold * 255);
    const context = canvas.getContext("2d");
    const picture = context.createImageData(canvas.width, canvas.height);
    let above = 0;
    for (let at = 0; at < mask.length; at += 4) {
      const shade = grey(photograph[at], photograph[at + 1], photograph[at + 2]);
      const value = mask[at];
      const share = value >= least ? settings.opacity : 0;
      if (value >= least) above += 1;
      for (let channel = 0; channel < 3; channel += 1) {
        picture.data[at + channel] = shade + share * (colours[value][channel] - shade);
      }
      picture.data[at + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
    const share = Math.round((400 * above) / mask.length);
    const output = canvas.parentElement.querySelector("output");
    output.textContent = least ? `${share} % of the image` : "";
    canvas.dataset.drawn = `${settings.opacity} ${settings.threshold}`;
  }

  async function start(root) {
    root.dataset.seen = "true";
    const colours = root.dataset.colours
      .split(" ")
      .map((text) => [1, 3, 5].map((from) => parseInt(text.slice(from, from + 2), 16)));
    for (const canvas of root.querySelectorAll("canvas")) {
      const photograph = await pixels(root.dataset.photograph, canvas.width, canvas.height);
      const mask = await pixels(canvas.dataset.mask, canvas.width, canvas.height);
      canvas.overlay = { photograph, mask, colours };
      draw(canvas);
    }
  }

  let waiting = false;

  function redraw() {
    waiting = false;
    for (const canvas of document.querySelectorAll(".overlays canvas")) {
      if (canvas.overlay) draw(canvas);
    }
  }

  function set(opacity, threshold) {
    settings.opacity = opacity / 100;
    settings.threshold = threshold / 100;
    if (!waiting) requestAnimationFrame(redraw);
    waiting = true;
  }

  new MutationObserver(() => {
    document.querySelectorAll(".overlays:not([data-seen])").forEach(start);
  }).observe(document.documentElement, { childList: true, subtree: true });

  return { set };
})();
window.overlays = overlays;
