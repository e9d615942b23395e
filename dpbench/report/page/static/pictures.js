// Pictures: one attack at a time, and a slider that swaps each reconstruction. Without this all are shown.

function slide(panel) {
  const control = panel.querySelector(".strength");
  if (!control) return;
  const range = control.querySelector('input[type="range"]');
  const every = control.querySelector('input[type="checkbox"]');
  const names = [...control.querySelectorAll(".names li")].map((name) => name.textContent);
  const show = () => {
    const name = names[range.value];
    control.querySelector("output").value = every.checked ? "" : name;
    range.setAttribute("aria-valuetext", name);
    for (const tile of panel.querySelectorAll("[data-level]")) {
      tile.toggleAttribute("data-shown", tile.dataset.level === range.value);
    }
    panel.classList.toggle("sliding", !every.checked);
    range.disabled = every.checked;
  };
  range.addEventListener("input", show);
  every.addEventListener("change", show);
  control.hidden = false;
  show();
}

for (const host of document.querySelectorAll(".pictures")) {
  const panels = [...host.querySelectorAll(".panel")];
  panels.forEach(slide);
  const which = host.querySelector("select");
  const choose = () => {
    const before = host.querySelector('[data-chosen] input[type="range"]');
    panels.forEach((panel, i) => panel.toggleAttribute("data-chosen", String(i) === which.value));
    const now = host.querySelector('[data-chosen] input[type="range"]');
    if (before && now && before.max === now.max) {
      now.value = before.value; // attacks are compared at the same strength
      now.dispatchEvent(new Event("input"));
    }
  };
  which.addEventListener("change", choose);
  choose();
  if (panels.length > 1) {
    host.querySelector(".choose").hidden = false;
    host.classList.add("choosing");
  }
}
