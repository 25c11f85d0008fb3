"use strict";
// Picking an image and a class, and the strength of the overlay. Names are only ever set as text, never as HTML.
const explainerGallery = (() => {
  const PAGE = 48; // photographs in the strip at a time
  const byId = (name) => document.getElementById(`gallery-${name}`);
  const index = JSON.parse(byId("index").textContent);
  const contents = JSON.parse(byId("contents").textContent);
  const loading = new Set();
  const state = { image: 0, label: null, chosen: index.images.map((_, number) => number), page: 0 };

  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  // Content of an image that lies beside the page: a script that calls `put`.
  const load = (number) => {
    if (loading.has(number)) return;
    loading.add(number);
    const script = make("script", { src: `gallery/${String(number).padStart(6, "0")}.js` });
    script.onerror = () => {
      loading.delete(number);
      byId("state").textContent = "The folder “gallery” must lie beside this page: its pictures were not found.";
    };
    document.head.append(script);
  };

  const put = (number, content) => {
    contents[number] = content;
    if (number === state.image) showTiles();
  };

  const picture = (source, text, kind) => make("img", { src: source, alt: text, className: kind, loading: "lazy" });

  const rounded = (text) => (/^-?\d+$/.test(text) || !Number.isFinite(Number(text)) ? text : String(Number(Number(text).toPrecision(3))));

  const scores = (content, method) => {
    const found = content.scores[method] || {};
    const own = found[state.label];
    const values = own || found[""];
    if (!values) return "";
    const list = make("dl", { className: "scores" });
    for (const [name, value] of Object.entries(values)) {
      const number = make("dd", { textContent: rounded(value), title: value });
      number.dataset.value = value;
      list.append(make("div", {}, make("dt", { textContent: name.replaceAll("_", " ") }), number));
    }
    return list;
  };

  const empty = (text) => make("span", { className: "missing", textContent: text });

  const tile = (content, method, called) => {
    const map = (content.maps[method] || {})[state.label];
    const isTruth = method === "ground_truth";
    const stack = make("div", { className: "stack" });
    if (!isTruth && content.photograph) stack.append(picture(content.photograph, "", "under"));
    if (map) stack.append(picture(map, `${called}: map of ${state.label}`, isTruth ? "plain" : "heat"));
    else stack.append(empty("no map"));
    const name = make("strong", { title: method, textContent: isTruth ? "ground truth" : called.replace(/[,:_]/g, "$&\u200b") });
    return make("figure", {}, stack, make("figcaption", {}, name, scores(content, method)));
  };

  // Runs with different classifiers have different ones, which then stand with their runs' names.
  const probability = (byRun) => {
    const known = Object.entries(byRun).filter((one) => one[1] !== "");
    const texts = known.map(([run, value]) => [run, Number(value).toFixed(3)]);
    if (!texts.length) return "";
    if (new Set(texts.map((one) => one[1])).size === 1) return `, probability ${texts[0][1]}`;
    return `, probability ${texts.map(([run, value]) => `${value} (${run})`).join(", ")}`;
  };

  const showTiles = () => {
    const content = contents[state.image];
    const image = index.images[state.image];
    if (!content) {
      byId("state").textContent = `Loading ${image.name} …`;
      byId("tiles").replaceChildren();
      load(state.image);
      return;
    }
    const facts = image.classes.find((one) => one.name === state.label);
    byId("state").textContent = `${image.name}: ${state.label ?? "no class"}${facts ? probability(facts.probability) : ""}`;
    const shown = content.photograph ? picture(content.photograph, `Photograph ${image.name}`, "plain") : empty("no photograph");
    const photograph = make("figure", {}, make("div", { className: "stack" }, shown));
    photograph.append(make("figcaption", {}, make("strong", { textContent: "photograph" })));
    // A method without a map of any class of this image is not a failure of this image: its tile says so all the same.
    byId("tiles").replaceChildren(photograph, ...index.methods.map(([method, called]) => tile(content, method, called)));
  };

  const showClasses = () => {
    const classes = index.images[state.image].classes;
    if (!classes.some((one) => one.name === state.label)) state.label = classes.length ? classes[0].name : null;
    const options = classes.map((one, place) => {
      const input = make("input", { type: "radio", name: "gallery-class", id: `gallery-class-${place}`, checked: one.name === state.label });
      input.addEventListener("change", () => { state.label = one.name; showTiles(); });
      const absent = one.present === "0" ? " (not in the image)" : "";
      return make("label", {}, input, ` ${one.name}${absent}`);
    });
    byId("classes").replaceChildren(byId("classes").firstElementChild, ...options);
  };

  const showStrip = () => {
    const first = state.page * PAGE;
    const shown = state.chosen.slice(first, first + PAGE);
    const buttons = shown.map((number) => {
      const image = index.images[number];
      const source = image.thumbnail || contents[number]?.photograph;
      const inside = source ? picture(source, image.name, "") : make("span", { className: "nameless", textContent: image.name });
      const button = make("button", { type: "button", title: image.name }, inside);
      button.dataset.image = number;
      button.setAttribute("aria-pressed", String(number === state.image));
      button.addEventListener("click", () => pick(number));
      return button;
    });
    byId("strip").replaceChildren(...buttons);
    const pages = Math.ceil(state.chosen.length / PAGE);
    byId("pages").hidden = pages < 2;
    byId("range").textContent = `${first + 1}–${first + shown.length} of ${state.chosen.length}`;
    byId("earlier").disabled = state.page === 0;
    byId("later").disabled = state.page >= pages - 1;
  };

  // By hand: `scrollIntoView` would scroll the page too.
  const reveal = (button) => {
    const strip = byId("strip").getBoundingClientRect();
    const place = button.getBoundingClientRect();
    if (place.left >= strip.left && place.right <= strip.right) return;
    byId("strip").scrollLeft += place.left - strip.left - (strip.width - place.width) / 2;
  };

  const pick = (number) => {
    state.image = number;
    byId("image").value = String(number);
    const page = Math.floor(state.chosen.indexOf(number) / PAGE);
    if (page !== state.page || !byId("strip").childElementCount) {
      state.page = page;
      showStrip();
    }
    for (const button of byId("strip").children) {
      const isPicked = Number(button.dataset.image) === number;
      button.setAttribute("aria-pressed", String(isPicked));
      if (isPicked) reveal(button);
    }
    showClasses();
    showTiles();
  };

  const step = (by) => {
    const place = state.chosen.indexOf(state.image) + by;
    if (place >= 0 && place < state.chosen.length) pick(state.chosen[place]);
  };

  const filter = (label) => {
    const has = (image) => label === "" || image.classes.some((one) => one.name === label);
    state.chosen = index.images.map((_, number) => number).filter((number) => has(index.images[number]));
    const options = state.chosen.map((number) => make("option", { value: String(number), textContent: index.images[number].name }));
    byId("image").replaceChildren(...options);
    if (label !== "") state.label = label;
    byId("strip").replaceChildren();
    state.page = 0;
    pick(state.chosen.includes(state.image) ? state.image : state.chosen[0]);
  };

  const strengthen = () => {
    const percent = byId("strength").value;
    byId("tiles").style.setProperty("--strength", String(percent / 100));
    byId("strength-value").textContent = `${percent} %`;
  };

  const turn = (by) => { state.page += by; showStrip(); };

  const classes = [...new Set(index.images.flatMap((image) => image.classes.map((one) => one.name)))];
  classes.sort((first, second) => first.localeCompare(second, undefined, { numeric: true }));
  byId("filter").append(...classes.map((name) => make("option", { value: name, textContent: name })));
  byId("filter").addEventListener("change", (event) => filter(event.target.value));
  byId("image").addEventListener("change", (event) => pick(Number(event.target.value)));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("earlier").addEventListener("click", () => turn(-1));
  byId("later").addEventListener("click", () => turn(1));
  byId("strength").addEventListener("input", strengthen);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-picks]");
    if (!link) return;
    const number = index.images.findIndex((image) => image.name === link.dataset.picks);
    if (number < 0) return;
    byId("filter").value = "";
    filter("");
    pick(number);
    document.getElementById("gallery").scrollIntoView();
  });
  return { put, start: () => { strengthen(); filter(""); } };
})();
explainerGallery.start();
