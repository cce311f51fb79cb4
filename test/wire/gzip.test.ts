/** What a compressed stream is made of: sums that are put together, and pieces that every decoder reads at once. */
import { constants, crc32, gunzipSync } from 'node:zlib'
import fc from 'fast-check'
import t from 'tap'
import { History } from '../../src/wire/gzip.ts'
import { chunked, gzipped, plain } from '../../src/wire/packing.ts'
import { Sum } from '../../src/wire/sum.ts'

const parts = fc.array(
  fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes)),
  { maxLength: 8 }
)

/** The sum of a text as zlib makes it. */
function sumOf(text: Buffer) {
  return { crc: crc32(text), length: text.length }
}

t.test('the sum of parts is that of the whole, in whatever way they are put together', t => {
  fc.assert(
    fc.property(parts, parts, parts, (own, shared, more) => {
      const sum = Sum.of(Buffer.concat(own))
      const other = Sum.of(Buffer.concat(more))
      sum.append(Sum.of(Buffer.concat(shared)))
      const text = Buffer.concat([...own, ...shared])
      const { crc, length } = sum
      if (crc !== crc32(text) || length !== text.length) throw new Error('append')
      sum.follow(other)
      if (!sum.follows) throw new Error('follows nobody')
      for (const part of shared) other.append(Sum.of(part))
      sum.leave(other)
      const whole = sumOf(Buffer.concat([text, ...shared]))
      if (sum.follows || sum.crc !== whole.crc || sum.length !== whole.length) throw new Error('follow')
    })
  )
  t.pass('as zlib says')
  t.end()
})

t.test('a sum goes on past 4 GiB, of which a trailer says the rest', async t => {
  const block = Sum.of(Buffer.alloc(2 ** 20, 'x'))
  const doubled = new Sum()
  doubled.append(block)
  for (let n = 0; n < 13; n++) {
    const same = new Sum()
    same.append(doubled)
    doubled.append(same)
  }
  const followed = new Sum()
  const follower = new Sum()
  follower.follow(followed)
  for (let n = 0; n < 2 ** 13; n++) followed.append(block)
  follower.leave(followed)
  t.equal(follower.length, 2 ** 33)
  t.match(doubled, { crc: follower.crc, length: 2 ** 33 }, 'doubled or added one by one')
  follower.append(Sum.of(Buffer.from('five!')))
  const end = gzipped(plain).gzip!.trailer(follower)
  t.equal(end.readUInt32LE(end.length - 4), 5)
  t.equal(end.readUInt32LE(end.length - 8), follower.crc)
})

/** All sizes at which something changes. */
const SIZES = [0, 1, 2, 2047, 2048, 2049, 8191, 8192, 8193, 32_768, 65_535, 65_536, 200_000]

t.test('a piece of any size can be read at once, wherever it stands', async t => {
  for (const [packing, other] of [
    [gzipped(plain), plain],
    [gzipped(chunked), chunked]
  ] as const) {
    t.not(packing.key, other.key)
    for (const size of SIZES) {
      const frames = [Buffer.from('first\n'), random(size), Buffer.from('last\n'), Buffer.alloc(size, 'same')]
      const text = Buffer.concat(frames)
      const { bytes, sum } = packing.pack(frames)
      t.match(sum, sumOf(text), `${size}`)
      const gzip = packing.gzip!
      const whole = bodyOf(packing.key, [gzip.header, bytes, packing.pack([]).bytes, bytes])
      const read = gunzipSync(whole, { finishFlush: constants.Z_SYNC_FLUSH })
      t.ok(read.equals(Buffer.concat([text, text])), `${packing.key} ${size}`)
      const all = Sum.of(Buffer.concat([text, text]))
      const end = bodyOf(packing.key, [gzip.trailer(all)])
      t.ok(gunzipSync(Buffer.concat([whole, end])).equals(read))
      if (packing.key === 'gzip')
        t.same(bytes.subarray(-4), Buffer.from([0, 0, 0xff, 0xff]), 'every decoder gives it away')
    }
  }
  t.same(gzipped(chunked).pack([Buffer.alloc(0)]).bytes, Buffer.alloc(0), 'of nothing there is no chunk')
})

t.test('what is written is told by what was written before, up to a full history and past it', async t => {
  const packing = gzipped(plain)
  const gzip = packing.gzip!
  const history = new History()
  const written: Buffer[] = [gzip.header]
  let text = ''
  let first = 0
  let last = 0
  for (let n = 0; n < 400; n++) {
    const frame = `event: quote\ndata: {"symbol":"S${n % 7}","price":${n / 3}}\nid: 1795415443${n}-0\n\n`
    const large = n % 50 === 49 ? random(n * 100).toString('latin1') : ''
    const { bytes } = gzip.pack([Buffer.from(frame), Buffer.from(large)], history)
    if (n === 0) first = bytes.length
    if (n === 40) last = bytes.length
    written.push(bytes)
    text += frame + large
    if (n % 97 === 96) history.clear()
  }
  const read = gunzipSync(Buffer.concat(written), { finishFlush: constants.Z_SYNC_FLUSH })
  t.ok(read.toString() === text)
  t.ok(last < first / 2, `${last} bytes, and ${first} without what came before`)
})

/** The body that was sent. */
function bodyOf(key: string, writes: readonly Buffer[]): Buffer {
  const all = Buffer.concat(writes)
  if (key === 'gzip') return all
  const bodies: Buffer[] = []
  let rest = all
  while (rest.length > 0) {
    const end = rest.indexOf('\r\n')
    const size = parseInt(rest.toString('latin1', 0, end), 16)
    bodies.push(rest.subarray(end + 2, end + 2 + size))
    rest = rest.subarray(end + size + 4)
  }
  return Buffer.concat(bodies)
}

/** Bytes that can't be compressed; always the same. */
function random(size: number): Buffer {
  let state = 1
  return Buffer.from(Array.from({ length: size }, () => (state = (state * 48_271) % 2_147_483_647) & 0xff))
}
