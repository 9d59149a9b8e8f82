"use strict";
// Polls the JSON of the board and fetches the drawn parts that have changed. Texts from runs are
// escaped by the server; here they are only ever set as text.
const asked = new URLSearchParams(location.search).get("board");
const shown = { board: "", pictures: "" };

async function get(path, kind) {
  const answer = await fetch(path, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer[kind]();
}

function list(boards, key) {
  const items = boards.length < 2 ? [] : boards.map((board) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = "?board=" + encodeURIComponent(board.key);
    link.textContent = `${board.tract || board.key} · ${board.run} · ${board.outcome}`;
    if (board.key === key) link.setAttribute("aria-current", "page");
    item.append(link);
    return item;
  });
  document.getElementById("boards").replaceChildren(...items);
}

function tooltip(board) {
  const words = { ".": "no warp", w: "waiting", i: "ingested", d: "differenced", m: "matched",
    c: "in the coadd", e: "no usable pixel", r: "rejected" };
  const matrix = document.querySelector(".bgm-matrix");
  if (!matrix) return;
  matrix.addEventListener("mousemove", (event) => {
    const box = matrix.getBoundingClientRect();
    const patches = Number(matrix.dataset.patches);
    const x = Math.floor((event.clientX - box.left - matrix.dataset.left) / matrix.dataset.cellWidth);
    const y = Math.floor((event.clientY - box.top) / matrix.dataset.cellHeight);
    const inside = x >= 0 && x < patches && y >= 0 && y < board.visits.length;
    matrix.parentElement.title = inside
      ? `visit ${board.visits[y]}, patch ${x}: ${words[board.cells[y * patches + x]]}` : "";
  });
}

async function look() {
  const boards = await get("boards.json", "json");
  if (!boards.length) return;
  const key = boards.some((board) => board.key === asked) ? asked : boards[0].key;
  list(boards, key);
  const query = "?board=" + encodeURIComponent(key);
  const board = await get("board.json" + query, "json");
  document.title = `${board.tract} · ${board.outcome} · bgmatch`;
  const version = `${key} ${board.version} ${board.over ? "" : Math.floor(Date.now() / 3000)}`;
  if (version !== shown.board) {
    document.getElementById("board").innerHTML = await get("fragment.html" + query, "text");
    tooltip(board);
    shown.board = version;
  }
  const pictures = key + board.pictures.map((picture) => picture.name + picture.version).join();
  if (pictures !== shown.pictures) {
    document.getElementById("pictures").innerHTML = await get("pictures.html" + query, "text");
    shown.pictures = pictures;
  }
}

async function watch() {
  const trouble = document.getElementById("trouble");
  try {
    await look();
    trouble.hidden = true;
  } catch (error) {
    const over = document.querySelector("#board [data-outcome]:not([data-outcome=running])");
    trouble.textContent = over
      ? "The run is over and its scheduler has gone; what is shown is its last word."
      : `The scheduler does not answer; what is shown is the last that was heard. (${error.message})`;
    trouble.hidden = false;
  }
  setTimeout(watch, document.hidden ? 5000 : 1000);
}

watch();
