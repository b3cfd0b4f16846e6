const SHOWN = 5;
const byId = (id) => document.getElementById(id);
const state = { about: null, file: null, answer: null, asked: 0, running: null, preview: null };

// names: one a line, or by commas where there is one line only

function readNames() {
  const text = byId("names").value;
  const parts = text.includes("\n") ? text.split("\n") : text.split(",");
  return parts.map((part) => part.replace(/\s+/g, " ").trim()).filter((part) => part);
}

function countNames() {
  const count = readNames().length;
  const names = count === 1 ? "1 name" : `${count} names`;
  byId("names-note").textContent = `${names}. One a line, or on one line by commas. Ctrl+Enter uses them.`;
}

// from logits to what is shown

function between(answer, strength) {
  if (strength === 0) return answer.frozen;
  if (strength === 1) return answer.adapted;
  return answer.frozen.map((logit, i) => (1 - strength) * logit + strength * answer.adapted[i]);
}

function shares(logits, fit) {
  if (fit === "sigmoid") return logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = logits.map((logit) => Math.exp(logit - most));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
}

function likeliest(logits) {
  const { class_names, fit } = state.answer;
  const found = shares(logits, fit);
  return class_names
    .map((name, i) => ({ name, share: found[i], logit: logits[i] }))
    .sort((a, b) => b.logit - a.logit);
}

function isNone(share) { // a softmax can't say so
  return state.answer.fit === "sigmoid" && share < 0.5;
}

function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text; // never markup
  return made;
}

function fill(list, ranked) {
  const none = isNone(ranked[0].share) ? [element("li", "empty", "None of these")] : [];
  list.replaceChildren(
    ...none,
    ...ranked.slice(0, SHOWN).map(({ name, share }) => {
      const row = element("li");
      const label = element("span", "name", name);
      label.dir = "auto";
      const track = element("div", "track");
      const bar = element("div", "bar");
      bar.style.width = `${100 * share}%`;
      track.append(bar);
      row.append(label, element("span", "share", percent(share)), track);
      return row;
    }),
  );
}

function strength() {
  return Number(byId("strength").value);
}

function show() {
  byId("strength-value").textContent = `λ = ${strength().toFixed(2)}`;
  const answer = state.answer;
  byId("flag").disabled = !answer;
  if (!answer) {
    for (const id of ["frozen", "adapted", "between"]) {
      byId(id).replaceChildren(element("li", "empty", "The answer appears here."));
    }
    return;
  }
  fill(byId("frozen"), likeliest(answer.frozen));
  fill(byId("adapted"), likeliest(answer.adapted));
  fill(byId("between"), likeliest(between(answer, strength())));
}

function top(logits) {
  const best = likeliest(logits)[0];
  return { name: best.name.slice(0, 300), probability: Math.min(1, best.share) };
}

function said({ name, probability }) {
  return `${isNone(probability) ? "none of these; likeliest " : ""}${name}, ${percent(probability)}.`;
}

function complain(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

async function sentence(response) {
  try {
    const { problem, fix } = await response.json();
    return [problem, fix].filter(Boolean).join(" ");
  } catch {
    return `The answer was an error (${response.status}).`;
  }
}

// asking

async function ask() {
  if (!state.file) return;
  const names = readNames();
  if (!names.length) {
    complain("There are no class names. Give at least one.");
    return;
  }
  if (state.file.size > state.about.limits.upload_bytes - 65536) {
    forget();
    const most = Math.floor(state.about.limits.upload_bytes / 2 ** 20);
    complain(`This file is too large; the page takes up to ${most} MB.`);
    return;
  }
  const number = ++state.asked;
  if (state.running) state.running.abort();
  state.running = new AbortController();
  byId("answers").setAttribute("aria-busy", "true");
  const form = new FormData();
  form.append("image", state.file, "image");
  form.append("names", JSON.stringify(names));
  try {
    const response = await fetch("/compare", { method: "POST", body: form, signal: state.running.signal });
    if (number !== state.asked) return;
    if (!response.ok) {
      forget();
      complain(await sentence(response));
      return;
    }
    state.answer = await response.json();
    complain("");
    byId("flag-note").textContent = "";
    byId("right-names").replaceChildren(
      ...names.slice(0, 200).map((name) => {
        const option = element("option");
        option.value = name;
        return option;
      }),
    );
    show();
    const frozen = top(state.answer.frozen);
    const adapted = top(state.answer.adapted);
    byId("status").textContent = `Frozen: ${said(frozen)} Adapted: ${said(adapted)}`;
  } catch (error) {
    if (error.name === "AbortError" || number !== state.asked) return;
    forget();
    complain("The page can't reach its server. Is it still running?");
  } finally {
    if (number === state.asked) byId("answers").setAttribute("aria-busy", "false");
  }
}

function forget() {
  state.answer = null;
  byId("status").textContent = "";
  show();
}

function take(file) {
  if (!file) return;
  state.file = file;
  byId("file-name").textContent = file.name || "pasted image";
  byId("choose-text").textContent = "Choose another";
  byId("invitation").hidden = true;
  if (state.preview) URL.revokeObjectURL(state.preview);
  state.preview = URL.createObjectURL(file);
  const preview = byId("preview");
  preview.hidden = true; // until it turns out to be an image
  preview.onload = () => { preview.hidden = false; };
  preview.src = state.preview;
  preview.alt = "The chosen image";
  ask();
}

async function flag() {
  const answer = state.answer;
  if (!answer) return;
  const button = byId("flag");
  button.disabled = true;
  const chosen = strength();
  const body = {
    image: (state.file.name || "pasted image").slice(0, 300),
    sha256: answer.sha256,
    right: byId("right").value.slice(0, 200),
    strength: chosen,
    frozen: top(answer.frozen),
    adapted: top(answer.adapted),
    between: top(between(answer, chosen)),
  };
  try {
    const response = await fetch("/flag", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) {
      byId("flag-note").textContent = await sentence(response);
      return;
    }
    const { count, file } = await response.json();
    byId("flag-note").textContent = `Noted in ${file}, which holds ${count === 1 ? "1 flag" : `${count} flags`}.`;
    byId("right").value = "";
  } catch {
    byId("flag-note").textContent = "The page can't reach its server. Is it still running?";
  } finally {
    button.disabled = !state.answer;
  }
}

// the page's events

function listen() {
  byId("file").addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  byId("file").addEventListener("keydown", (event) => {
    if (event.key === "Enter") { // as on any other button; browsers heed the space bar only
      event.preventDefault();
      byId("file").click();
    }
  });
  byId("use").addEventListener("click", ask);
  byId("trained").addEventListener("click", () => {
    byId("names").value = state.about.class_names.join("\n");
    countNames();
    ask();
  });
  byId("names").addEventListener("input", countNames);
  byId("names").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      ask();
    }
  });
  byId("strength").addEventListener("input", show);
  byId("flag").addEventListener("click", flag);
  byId("right").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !byId("flag").disabled) flag();
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) {
      event.preventDefault();
      take(file);
    }
  });
  const drop = byId("drop");
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
}

async function start() {
  listen();
  show();
  try {
    state.about = await (await fetch("/about")).json();
  } catch {
    complain("The page can't reach its server. Is it still running?");
    return;
  }
  const { title, recipe, backbone, class_names, any_names } = state.about;
  document.title = `${title} · promptot`;
  byId("title").textContent = title;
  const classes = class_names.length === 1 ? "1 class" : `${class_names.length} classes`;
  const names = any_names ? "answers for any names" : "answers for its own names only";
  byId("about").textContent = `${recipe} on ${backbone}, trained on ${classes}; ${names}`;
  byId("names").value = class_names.slice(0, state.about.limits.names).join("\n");
  countNames();
  document.body.dataset.ready = "true";
}

start();
