// Tables that sort, filter and download, from the data that stands beside each of them.

const source = atob(document.getElementById("itables-bundle").textContent);
const bytes = Uint8Array.from(source, (letter) => letter.charCodeAt(0));
const address = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
const { default: DataTable, set_or_remove_dark_class: followColourScheme } = await import(address);
URL.revokeObjectURL(address);
followColourScheme();

const escaped = (text) =>
  String(text).replace(/[&<>"']/g, (mark) => `&#${mark.charCodeAt(0)};`);

const INFINITE = { Infinity: Infinity, "-Infinity": -Infinity };

function short(value) {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value)) return value.toLocaleString("en-US").replaceAll(",", "\u202f");
  const size = Math.abs(value);
  return size < 1e-3 || size >= 1e6 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

// Bounds, and the noise that they need, must not promise too much.
function upwards(value) {
  if (!Number.isFinite(value) || value === 0) return value;
  const unit = 10 ** (Math.floor(Math.log10(Math.abs(value))) - 3);
  const found = Math.ceil(value / unit - 1e-6) * unit;
  return Number(found.toPrecision(4));
}

function shown(value, column) {
  const link = column?.link;
  if (value === null) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") {
    return `<span title="${value}">${short(column?.up ? upwards(value) : value)}</span>`;
  }
  return link ? `<a href="#${escaped(link + value)}">${escaped(value)}</a>` : escaped(value);
}

// A spreadsheet takes words that begin so for formulas, and names are anybody's text.
const harmless = (value) => (typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : value);

function columnValues({ values, words, places }) {
  if (words) return places.map((place) => words[place]);
  return values.map((value) => (Object.hasOwn(INFINITE, value) ? INFINITE[value] : value));
}

function definition(column, index, values) {
  const numbers = values.some((value) => typeof value === "number");
  const missing = numbers ? -Infinity : "";
  return {
    title: escaped(column.title),
    visible: column.shown,
    className: numbers ? "number" : "word",
    render: (_, type, row) => {
      const value = row[index];
      if (type === "display") return shown(value, column);
      if (type === "export") return harmless(value ?? "");
      if (type === "filter") return typeof value === "boolean" ? shown(value) : value ?? "";
      return value ?? missing;
    },
  };
}

// Paper has no pages to turn: few rows are all printed, of many it says where the others are.
const FEW = 200;

function forPaper(host, table, file) {
  const note = host.querySelector(".on-paper");
  let length = null;
  const say = () => {
    const { start, end, recordsDisplay, recordsTotal } = table.page.info();
    const rows = end - start;
    const which = recordsDisplay < recordsTotal ? ` (${recordsDisplay} match the filter)` : "";
    note.textContent =
      rows < recordsTotal ? `${rows} of ${recordsTotal} rows${which}; all of them are in ${file}.` : "";
  };
  window.addEventListener("beforeprint", () => {
    if (length !== null || table.page.info().recordsDisplay > FEW) return;
    length = table.page.len();
    table.page.len(-1).draw();
  });
  window.addEventListener("afterprint", () => {
    if (length === null) return;
    table.page.len(length).draw();
    length = null;
  });
  table.on("draw", say);
  say();
}

function build(host) {
  const data = JSON.parse(document.getElementById(host.dataset.table).textContent);
  const columns = data.columns.map((column) => columnValues(column.data));
  const rows = columns.length ? columns[0].map((_, i) => columns.map((values) => values[i])) : [];
  const table = new DataTable(host.querySelector("table"), {
    data: rows,
    columns: data.columns.map((column, i) => definition(column, i, columns[i])),
    order: [],
    createdRow: (row, values) => {
      if (data.mark !== null && values[data.mark] !== null) row.classList.add("marked");
    },
    pageLength: 25,
    lengthMenu: [10, 25, 100, 500],
    autoWidth: false,
    language: {
      search: "Filter:",
      searchPlaceholder: "any column",
      zeroRecords: "No row matches.",
      searchBuilder: { button: { 0: "Conditions", _: "Conditions (%d)" } },
    },
    layout: {
      topStart: {
        buttons: [
          { extend: "colvis", text: "Columns" },
          { extend: "searchBuilder", config: { depthLimit: 1 } },
          {
            extend: "csv",
            text: "Download CSV",
            filename: `dpbench-${data.name}`,
            // as it is: otherwise what looks like a tag is cut out of names
            exportOptions: { orthogonal: "export", format: { body: (value) => value } },
          },
        ],
      },
      topEnd: "search",
      bottomStart: ["info", "pageLength"],
      bottomEnd: "paging",
    },
  });
  forPaper(host, table, data.file);
  data.columns.forEach((column, i) => {
    if (column.meaning) table.column(i).header().title = column.meaning;
  });
}

document.querySelectorAll("[data-table]").forEach(build);
document.documentElement.dataset.tables = "ready";
