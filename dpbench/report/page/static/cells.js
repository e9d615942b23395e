// A link to a cell opens it.

function open() {
  const cell = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (cell instanceof HTMLDetailsElement) {
    cell.open = true;
    cell.scrollIntoView({ block: "nearest" });
    cell.querySelector("summary").focus();
  }
}

window.addEventListener("hashchange", open);
document.addEventListener("click", (event) => {
  // the same link again changes nothing in the address
  if (event.target.closest?.('a[href^="#cell-"]')?.hash === location.hash) open();
});
open();
