/** Recorded data in files: rows of CSV (RFC 4180) or of newline-delimited JSON. */
import { createReadStream } from 'node:fs'
import { parse } from 'csv-parse'
import { cutLines } from './lines.ts'
import { compactJson, membersOf } from './wire/json.ts'

/** A row, and the line that it ends on, counted from 1. */
export interface Row {
  readonly line: number
  /** What each column has, as JSON text, with numbers as they were written. Columns that are empty are left out. */
  readonly columns: ReadonlyMap<string, string>
}

/** A file that can't be read as what it is called; the message says where and why. */
export class RecordingUnreadable extends Error {
  override name = 'RecordingUnreadable'
}

/** The longest line, in bytes. */
const MAX_LINE = 16 * 1024 * 1024

/**
 * The rows of a file, by the end of its name: `.csv`, whose first row names the columns, or `.ndjson` or `.jsonl`. Throws
 * `RecordingUnreadable`.
 */
export async function* readRows(file: string): AsyncGenerator<Row> {
  const read = /\.csv$/i.test(file) ? readCsv : /\.(ndjson|jsonl)$/i.test(file) ? readNdjson : undefined
  if (!read) throw new RecordingUnreadable('its name ends neither in .csv nor in .ndjson')
  try {
    yield* read(file)
  } catch (error) {
    // of the system and of the parser; ours is one already
    throw error instanceof Error ? new RecordingUnreadable(error.message) : error
  }
}

async function* readCsv(file: string): AsyncGenerator<Row> {
  const parser = parse({ bom: true, columns: true, info: true, skip_empty_lines: true })
  const source = createReadStream(file).on('error', error => parser.destroy(error))
  for await (const { record, info } of source.pipe(parser) as AsyncIterable<CsvRow>) {
    const cells = Object.entries(record).filter(([, cell]) => cell !== '')
    yield { line: info.lines, columns: new Map(cells.map(([name, cell]) => [name, cellJson(cell)])) }
  }
}

interface CsvRow {
  readonly record: Readonly<Record<string, string>>
  readonly info: { readonly lines: number }
}

/** A cell that is written as JSON writes a number is one. */
function cellJson(cell: string): string {
  return /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(cell) ? cell : JSON.stringify(cell)
}

async function* readNdjson(file: string): AsyncGenerator<Row> {
  const tooLong = () => new RecordingUnreadable(`a line has more than ${MAX_LINE} bytes`)
  let line = 0
  for await (const texts of cutLines(createReadStream(file), MAX_LINE, tooLong)) {
    for (const text of texts.map(String)) {
      line++
      if (text.trim() !== '') yield { line, columns: readObject(text, line) }
    }
  }
}

function readObject(text: string, line: number): Map<string, string> {
  if (!isObject(text)) throw new RecordingUnreadable(`line ${line} is no JSON object`)
  const members = [...membersOf(compactJson(text))]
  return new Map(members.filter(([, value]) => value !== 'null'))
}

function isObject(text: string): boolean {
  try {
    return JSON.parse(text) instanceof Object && /^\s*{/.test(text)
  } catch {
    return false
  }
}
