"use strict";
// The picture box: drop or choose, and the answer appears below. Without this file the form posts as forms do.

const form = document.querySelector(".ask");
const box = form.querySelector(".drop");
const input = form.querySelector("input[type=file]");
const preview = form.querySelector(".preview");
const answer = document.querySelector(".answer");

function show(file) {
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.hidden = false;
}

function say(sentence) {
  const line = document.createElement("p");
  line.textContent = sentence;
  answer.replaceChildren(line);
}

async function ask() {
  if (!input.files.length) return;
  show(input.files[0]);
  say("Asking …");
  try {
    const said = await fetch(`${form.action}?part=answer`, { method: "POST", body: new FormData(form) });
    if (said.ok) answer.innerHTML = await said.text();
    else say(`The local AWS refused: ${said.status} ${said.statusText}`);
  } catch {
    say("The local AWS does not answer.");
  }
}

for (const name of ["dragenter", "dragover"]) {
  box.addEventListener(name, (event) => {
    event.preventDefault();
    box.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  box.addEventListener(name, () => box.classList.remove("over"));
}
box.addEventListener("drop", (event) => {
  event.preventDefault();
  input.files = event.dataTransfer.files;
  ask();
});
input.addEventListener("change", ask);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
preview.addEventListener("error", () => {
  preview.hidden = true;
});
