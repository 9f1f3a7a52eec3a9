"use strict";
// Points in WebGL: drawn, moved, and found again by place. Our own, because libraries for this compile code from text
// in the browser (regl does), which the page's Content-Security-Policy forbids.
const SLOW = 20, STILL = 150;  // milliseconds: of a frame that the eye notices, and without a movement until all points are drawn
const coprime = (n) => {
  const divisor = (a, b) => (b ? divisor(b, a % b) : a);
  let stride = Math.max(1, Math.round(0.618 * n));
  while (divisor(n, stride) > 1) stride += 1;
  return stride;
};
const Points = class {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl", { antialias: false, alpha: true, premultipliedAlpha: true });
    [this.n, this.x, this.y, this.scale] = [0, 0, 0, 1];  // what is in the middle, and how far one is in
    Object.assign(this, { share: 1, slow: 0, fast: 0, patience: 10, tried: 1, shown: 0 });  // see pace()
    if (!this.gl) return;
    this.set(new Float32Array(0));
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => { this.start(); this.set(this.given); this.paint(this.colours, this.sizes); });
  }

  start() {
    const gl = this.gl, program = gl.createProgram();
    const sources = [
      [gl.VERTEX_SHADER, `attribute vec2 at; attribute vec4 colour; attribute float size; uniform vec2 middle, zoom; uniform float grain;
        varying vec4 paint; void main() { paint = colour; gl_Position = vec4((at - middle) * zoom, 0.0, 1.0); gl_PointSize = size * grain; }`],
      [gl.FRAGMENT_SHADER, `precision mediump float; varying vec4 paint; void main() {
        vec2 d = gl_PointCoord - 0.5; float a = paint.a * clamp(9.5 * (0.25 - dot(d, d)), 0.0, 1.0);
        gl_FragColor = vec4(paint.rgb * a, a); }`],
    ];
    for (const [kind, text] of sources) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.uniforms = Object.fromEntries(["middle", "zoom", "grain"].map((name) => [name, gl.getUniformLocation(program, name)]));
    this.buffers = {};
    for (const [name, n, kind] of [["at", 2, gl.FLOAT], ["colour", 4, gl.UNSIGNED_BYTE], ["size", 1, gl.UNSIGNED_BYTE]]) {
      const place = gl.getAttribLocation(program, name);
      this.buffers[name] = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, n, kind, name === "colour", 0, 0);
    }
  }

  // What the graphics card holds, in the order of drawing: the faintest first, and within one brightness evenly mixed,
  // so that any number of the last points shows all regions of the map and all classes.
  fill() {
    const { gl, n, colours, sizes } = this, starts = new Uint32Array(257);
    for (let i = 0; i < n; i += 1) starts[colours[4 * i + 3] + 1] += 1;
    for (let k = 1; k < 257; k += 1) starts[k] += starts[k - 1];
    const at = new Float32Array(2 * n), colour = new Uint8Array(4 * n), size = new Uint8Array(n);
    const stride = coprime(n);
    for (let k = 0, i = 0; k < n; k += 1, i = (i + stride) % n) {
      const place = starts[colours[4 * i + 3]];
      starts[colours[4 * i + 3]] += 1;
      for (let c = 0; c < 2; c += 1) at[2 * place + c] = this.xy[2 * i + c];
      for (let c = 0; c < 4; c += 1) colour[4 * place + c] = colours[4 * i + c];
      size[place] = sizes[i];
    }
    for (const [name, values] of Object.entries({ at, colour, size })) {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    }
    this.draw();
  }

  // Places from the server; they are moved and scaled to fill -1 to 1. What has no place is put out of sight.
  set(xy) {
    if (!this.buffers) this.start();
    this.given = xy;
    const n = xy.length / 2, low = [Infinity, Infinity], high = [-Infinity, -Infinity];
    for (let i = 0; i < 2 * n; i += 1) {
      if (xy[i] < low[i & 1]) low[i & 1] = xy[i];
      if (xy[i] > high[i & 1]) high[i & 1] = xy[i];
    }
    const middle = [0, 1].map((k) => (low[k] + high[k]) / 2);
    const half = Math.max(high[0] - low[0], high[1] - low[1]) / 2 || 1;
    this.xy = new Float32Array(2 * n);
    for (let i = 0; i < 2 * n; i += 1) this.xy[i] = Number.isNaN(xy[i]) ? 99 : (xy[i] - middle[i & 1]) / half * 0.95;
    if (n !== this.n) [this.n, this.colours, this.sizes] = [n, new Uint8Array(4 * n).fill(128), new Uint8Array(n).fill(5)];
    this.sort();
    this.fill();
  }

  paint(colours, sizes) {
    [this.colours, this.sizes] = [colours, sizes];
    this.fill();
  }

  draw() {
    this.stale = true;
    if (this.waiting) return;
    this.waiting = true;
    const frame = (now) => {
      const moving = now - this.moved < STILL;
      if (moving && this.drawn) this.pace(now - this.last);
      [this.last, this.drawn] = [now, this.stale];
      if (this.stale || (!moving && this.shown < this.n)) this.render(moving ? Math.ceil(this.share * this.n) : this.n);
      this.stale = false;
      this.waiting = moving;
      if (moving) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  // Where frames are slow, fewer points are drawn while they move: as many as this computer draws in time. Now and then
  // more are tried, less often each time that they are too many.
  pace(took) {
    if (Math.abs(Math.log(this.scale / this.tried)) > 0.4) [this.patience, this.tried] = [10, this.scale];  // others are in sight
    this.slow = took > SLOW ? this.slow + 2 : Math.max(0, this.slow - 1);
    this.fast = took > SLOW ? 0 : this.fast + 1;
    if (this.slow > 2) {  // one slow frame may be chance
      this.share = Math.max(0.05, this.share * 15 / Math.max(took, SLOW));
      [this.slow, this.fast, this.patience] = [0, 0, Math.min(120, 2 * this.patience)];
    } else if (this.fast > this.patience) [this.share, this.fast] = [Math.min(1, 1.2 * this.share), 0];
  }

  render(most) {
    const { gl, canvas } = this, n = Math.min(most, this.n);
    const grain = n < this.n ? 1 : devicePixelRatio || 1;  // where frames are slow, a fine screen's pixels cost too much as well
    const [width, height] = [Math.round(canvas.clientWidth * grain), Math.round(canvas.clientHeight * grain)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const unit = this.unit() * grain;
    gl.uniform2f(this.uniforms.middle, this.x, this.y);
    gl.uniform2f(this.uniforms.zoom, 2 * unit / width, 2 * unit / height);
    gl.uniform1f(this.uniforms.grain, grain * Math.min(3, Math.max(0.7, this.scale ** 0.4 * Math.min(1.2, (20000 / (this.n || 1)) ** 0.3))));
    gl.drawArrays(gl.POINTS, this.n - n, n);
    this.shown = n;
  }

  // geometry: pixels of the page from the canvas' corner, and places of the map
  unit() { return Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / 2 * this.scale; }
  toMap(px, py) {
    return [this.x + (px - this.canvas.clientWidth / 2) / this.unit(), this.y - (py - this.canvas.clientHeight / 2) / this.unit()];
  }
  toPage(i) {
    return [this.canvas.clientWidth / 2 + (this.xy[2 * i] - this.x) * this.unit(), this.canvas.clientHeight / 2 - (this.xy[2 * i + 1] - this.y) * this.unit()];
  }
  pan(dx, dy) {
    this.x = Math.min(1, Math.max(-1, this.x - dx / this.unit()));
    this.y = Math.min(1, Math.max(-1, this.y + dy / this.unit()));
    this.moved = performance.now();
    this.draw();
  }
  zoom(factor, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2) {
    const [x, y] = this.toMap(px, py);
    this.scale = Math.min(400, Math.max(0.8, this.scale * factor));
    const [nowX, nowY] = this.toMap(px, py);
    [this.x, this.y] = [this.x + x - nowX, this.y + y - nowY];
    this.pan(0, 0);
  }

  // 128 × 128 cells, each with its points, so that the nearest is found without looking at all
  cell(value) { return Math.min(127, Math.max(0, Math.floor((value + 1) * 64))); }
  sort() {
    const starts = new Uint32Array(128 * 128 + 1), cells = new Uint16Array(this.n);
    for (let i = 0; i < this.n; i += 1) {
      cells[i] = this.cell(this.xy[2 * i + 1]) * 128 + this.cell(this.xy[2 * i]);
      starts[cells[i] + 1] += 1;
    }
    for (let c = 1; c < starts.length; c += 1) starts[c] += starts[c - 1];
    this.starts = starts;
    this.order = new Uint32Array(this.n);
    const next = starts.slice();
    for (let i = 0; i < this.n; i += 1) { this.order[next[cells[i]]] = i; next[cells[i]] += 1; }
  }
  nearest(px, py, within, allowed) {
    const [x, y] = this.toMap(px, py), reach = within / this.unit();
    let [best, found] = [reach * reach, -1];
    for (let row = this.cell(y - reach); row <= this.cell(y + reach); row += 1) {
      for (let c = row * 128 + this.cell(x - reach); c <= row * 128 + this.cell(x + reach); c += 1) {
        for (let k = this.starts[c]; k < this.starts[c + 1]; k += 1) {
          const i = this.order[k], far = (this.xy[2 * i] - x) ** 2 + (this.xy[2 * i + 1] - y) ** 2;
          if (far < best && allowed(i)) [best, found] = [far, i];
        }
      }
    }
    return found;
  }
  // The points inside a line around them, by how often a ray crosses it.
  inside(line) {
    const ring = line.map(([px, py]) => this.toMap(px, py)), found = [];
    const [xs, ys] = [0, 1].map((k) => ring.map((p) => p[k]));
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    for (let i = 0; i < this.n; i += 1) {
      const x = this.xy[2 * i], y = this.xy[2 * i + 1];
      if (x < left || x > right || y < low || y > high) continue;
      let odd = false;
      for (let a = 0, b = ring.length - 1; a < ring.length; b = a, a += 1) {
        if ((ys[a] > y) !== (ys[b] > y) && x < (xs[b] - xs[a]) * (y - ys[a]) / (ys[b] - ys[a]) + xs[a]) odd = !odd;
      }
      if (odd) found.push(i);
    }
    return found;
  }
};
