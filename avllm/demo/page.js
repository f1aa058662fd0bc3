// Runs once for the panel of the file. `element`, `trigger`, `upload` and `watch` are given by Gradio.
const busy = (text) => {
  element.classList.toggle("av-busy", Boolean(text));
  element.dataset.busy = text || "";
};
const send = async (file) => {
  if (!file || element.classList.contains("av-busy")) return;
  const max = Number(element.querySelector("input[type=file]").dataset.max);
  if (file.size > max) {
    trigger("refused", { reason: "too_large", bytes: file.size });
    return;
  }
  busy("Sending…");
  try {
    const { path } = await upload(file);
    busy("Reading…");
    trigger("uploaded", { path: path, name: file.name });
  } catch (error) {
    busy("");
    trigger("refused", { reason: "failed", bytes: file.size });
  }
};
element.addEventListener("change", (event) => {
  if (event.target.type !== "file") return;
  event.stopPropagation();
  const file = event.target.files[0];
  send(file);
  event.target.value = "";
});
element.addEventListener("click", (event) => {
  if (event.target.closest("[data-act=remove]")) trigger("removed", {});
});
for (const name of ["dragenter", "dragover"])
  element.addEventListener(name, (event) => {
    event.preventDefault();
    element.classList.add("av-over");
  });
for (const name of ["dragleave", "drop"])
  element.addEventListener(name, (event) => {
    event.preventDefault();
    element.classList.remove("av-over");
  });
element.addEventListener("drop", (event) => send(event.dataTransfer.files[0]));
watch("value", () => busy(""));
