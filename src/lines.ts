/** Bytes cut into lines. */

const LINE_FEED = 0x0a

/**
 * The lines in some chunks, without their ends; those of one chunk at a time. A line of more than `most` bytes throws what
 * `tooLong` answers.
 */
export async function* cutLines(
  chunks: AsyncIterable<Uint8Array>,
  most: number,
  tooLong: () => Error
): AsyncGenerator<Buffer[]> {
  let begun: Uint8Array[] = []
  let length = 0
  for await (const chunk of chunks) {
    const lines: Buffer[] = []
    let from = 0
    for (let end; (end = chunk.indexOf(LINE_FEED, from)) >= 0; from = end + 1) {
      lines.push(Buffer.concat([...begun, chunk.subarray(from, end)]))
      begun = []
      length = 0
    }
    begun.push(chunk.subarray(from))
    length += chunk.length - from
    if (lines.length > 0) yield lines
    if (length > most) throw tooLong()
  }
  if (length > 0) yield [Buffer.concat(begun)]
}
