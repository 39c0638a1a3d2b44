// Shows the values under the pointer in a chart's legend. The page is complete without it.
for (const svg of document.querySelectorAll("svg[data-points]")) {
  const lines = JSON.parse(svg.dataset.points);
  const values = [...svg.parentNode.querySelectorAll(".legend b")];
  const newest = values.map((value) => value.textContent);
  const pointer = document.createElementNS(svg.namespaceURI, "path");
  pointer.setAttribute("class", "pointer");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    lines.forEach((line, i) => {
      if (line.length === 0) return;
      const near = line.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      values[i].textContent = near[1] + " at " + near[2];
      pointer.setAttribute("d", "M" + near[0] + " 10V186");
    });
    svg.append(pointer);
  });
  svg.addEventListener("pointerleave", () => {
    pointer.remove();
    values.forEach((value, i) => (value.textContent = newest[i]));
  });
}
