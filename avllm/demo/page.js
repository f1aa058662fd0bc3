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
    trigger("uploaded", { sent: path, name: file.name });
  } catch (error) {
    busy("");
    trigger("refused", { reason: "failed", bytes: file.size });
  }
};

// Camera and microphone, where the browser has them and the page may use them (this machine, or https).
const MAX_SECONDS = 60;
const TYPES = {
  camera: ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4"],
  microphone: ["audio/webm;codecs=opus", "audio/webm", "audio/mp4"],
};
const can_record = Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
element.classList.toggle("av-can-record", can_record);
let close_recorder = () => {};

const open_device = async (kind) => {
  const video = kind === "camera";
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true, video });
  } catch (error) {
    if (!video) throw error;
    return await navigator.mediaDevices.getUserMedia({ video }); // a camera without a microphone
  }
};

const add_button = (parent, act, label, clicked) => {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "av-device", textContent: label, onclick: clicked });
  button.dataset.act = act;
  parent.append(button);
  return button;
};

const record = async (kind) => {
  close_recorder();
  let stream;
  try {
    stream = await open_device(kind);
  } catch (error) {
    trigger("refused", { reason: "no_device", bytes: 0 });
    return;
  }
  const panel = document.createElement("div");
  const buttons = document.createElement("div");
  const clock = document.createElement("span");
  panel.className = "av-recorder";
  buttons.className = "av-recorder-line";
  clock.className = "av-clock";
  clock.textContent = kind === "camera" ? "Camera is on" : "Microphone is on";
  const preview = document.createElement("video");
  if (kind === "camera") {
    Object.assign(preview, { srcObject: stream, muted: true, autoplay: true, playsInline: true });
    panel.append(preview);
  }
  panel.append(buttons);
  buttons.append(clock);
  element.append(panel);
  let timer, recorder;
  close_recorder = () => {
    clearInterval(timer);
    if (recorder?.state === "recording") {
      recorder.onstop = null;
      recorder.stop();
    }
    stream.getTracks().forEach((track) => track.stop());
    panel.remove();
    close_recorder = () => {};
  };
  const finish = (blob, name) => {
    close_recorder();
    send(new File([blob], name, { type: blob.type }));
  };
  const start = add_button(buttons, "record", "● Record", () => {
    const type = TYPES[kind].find((type) => MediaRecorder.isTypeSupported(type));
    const parts = [];
    recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      const suffix = recorder.mimeType.includes("mp4") ? (kind === "camera" ? "mp4" : "m4a") : "webm";
      finish(new Blob(parts, { type: recorder.mimeType }), `${kind}.${suffix}`);
    };
    recorder.start();
    start.textContent = "■ Stop";
    start.dataset.act = "record-stop";
    start.onclick = () => recorder.state === "recording" && recorder.stop();
    const begun = Date.now();
    timer = setInterval(() => {
      const seconds = (Date.now() - begun) / 1000;
      clock.textContent = `recording ${seconds.toFixed(1)} s`;
      if (seconds >= MAX_SECONDS) start.onclick();
    }, 100);
  });
  if (kind === "camera")
    add_button(buttons, "photo", "Photo", () => {
      if (!preview.videoWidth) return;
      const canvas = document.createElement("canvas");
      canvas.width = preview.videoWidth;
      canvas.height = preview.videoHeight;
      canvas.getContext("2d").drawImage(preview, 0, 0);
      canvas.toBlob((blob) => finish(blob, "photo.jpg"), "image/jpeg", 0.92);
    });
  add_button(buttons, "cancel", "Cancel", () => close_recorder());
};

element.addEventListener("change", (event) => {
  if (event.target.type !== "file") return;
  event.stopPropagation();
  const file = event.target.files[0];
  send(file);
  event.target.value = "";
});
element.addEventListener("click", (event) => {
  const act = event.target.closest("[data-act]")?.dataset.act;
  if (act === "remove") trigger("removed", {});
  if (act === "camera" || act === "microphone") record(act);
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
