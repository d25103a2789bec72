"use strict";
// Reads the small palette and grey PNGs of the overlays, value by value. A canvas could show them but not be read on
// every machine: browsers that guard against fingerprints change the pixels that a page reads back.
globalThis.Review ??= {};

Review.png = (() => {
  const bytesOf = (base64) => {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
    return bytes;
  };

  // Written into the stream part by part: a Blob of them goes through another process of the browser.
  const inflate = async (parts) => {
    const stream = new DecompressionStream("deflate"), writer = stream.writable.getWriter();
    const ignore = () => {}; // damaged data fails where it is read
    for (const part of parts) writer.write(part).catch(ignore);
    writer.close().catch(ignore);
    return new Uint8Array(await new Response(stream.readable).arrayBuffer());
  };

  const paeth = (left, up, corner) => {
    const guess = left + up - corner;
    const a = Math.abs(guess - left), b = Math.abs(guess - up), c = Math.abs(guess - corner);
    return a <= b && a <= c ? left : b <= c ? up : corner;
  };

  // Rows of bytes with their filters undone.
  const unfiltered = (raw, stride, height) => {
    const rows = new Uint8Array(stride * height);
    for (let row = 0, from = 0; row < height; row++) {
      const filter = raw[from++], at = row * stride, above = at - stride;
      if (filter === 0) {
        rows.set(raw.subarray(from, from + stride), at);
        from += stride;
        continue;
      }
      for (let column = 0; column < stride; column++, from++) {
        const left = column ? rows[at + column - 1] : 0, up = row ? rows[above + column] : 0;
        const corner = column && row ? rows[above + column - 1] : 0;
        const guess = filter === 1 ? left : filter === 2 ? up : filter === 3 ? (left + up) >> 1 : paeth(left, up, corner);
        rows[at + column] = raw[from] + guess;
      }
    }
    return rows;
  };

  // {width, height, values}: one byte per pixel, as the file has it. One channel, at most 8 bits, not interlaced.
  const decode = async (base64) => {
    const bytes = bytesOf(base64), view = new DataView(bytes.buffer);
    const width = view.getUint32(16), height = view.getUint32(20), bits = bytes[24], colour = bytes[25];
    if (bits > 8 || (colour !== 0 && colour !== 3) || bytes[28] !== 0) throw new Error("not a PNG of this page's kind");
    const parts = [];
    for (let place = 8; place < bytes.length; ) {
      const length = view.getUint32(place), kind = String.fromCharCode(...bytes.subarray(place + 4, place + 8));
      if (kind === "IDAT") parts.push(bytes.subarray(place + 8, place + 8 + length));
      place += length + 12;
    }
    const stride = Math.ceil((width * bits) / 8);
    const rows = unfiltered(await inflate(parts), stride, height);
    if (bits === 8) return { width, height, values: rows };
    const values = new Uint8Array(width * height), mask = (1 << bits) - 1, perByte = 8 / bits;
    for (let row = 0, to = 0; row < height; row++)
      for (let column = 0; column < width; column++, to++) {
        const byte = rows[row * stride + Math.floor(column / perByte)];
        values[to] = (byte >> (8 - bits * ((column % perByte) + 1))) & mask;
      }
    return { width, height, values };
  };

  return { decode, bytesOf };
})();
