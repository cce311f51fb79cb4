/**
 * `npm run stores -- [--only TEXT] [--seconds N] [--write]`: runs Ringside on every store that can be had, and prints what
 * becomes of it as the table of docs/stores.md; `--write` writes it there.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { format } from 'prettier'
import { STORES, type StoreKind } from './stores.ts'
import { tryStore } from './trial.ts'

const PAGE = 'docs/stores.md'
const [START, END] = ['<!-- stores -->', '<!-- /stores -->']
const HEAD = ['Store', 'From', 'Conformance', 'Chaos', 'Ring of 1', 'Ring of 1,000', 'What it is told']

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    seconds: { type: 'string', default: '15' },
    write: { type: 'boolean', default: false }
  }
})

const folder = mkdtempSync(join(tmpdir(), 'ringside-stores-'))
const rows = [HEAD, HEAD.map(() => '---')]
try {
  const chosen = STORES.filter(({ name, source }) => `${name} ${source}`.includes(values.only))
  for (const [index, store] of chosen.entries()) {
    const row = await rowOf(store, join(folder, String(index)))
    console.error(row.join(' | '))
    rows.push(row)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
const lines = rows.map(row => `| ${row.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`)
const table = await format(lines.join('\n'), { parser: 'markdown' })
console.log(table)
if (values.write) {
  const [before, rest] = readFileSync(PAGE, 'utf8').split(START) as [string, string]
  writeFileSync(PAGE, `${before}${START}\n\n${table}\n${END}${rest.split(END)[1]}`)
}

async function rowOf(store: StoreKind, folder: string): Promise<string[]> {
  mkdirSync(folder)
  const { name, source } = store
  try {
    const program = await store.install(folder)
    const { version, conformance, chaos, refusal, memory } = await tryStore({
      ...{ program, folder },
      seconds: Number(values.seconds)
    })
    return [`${name} ${version}`, source, conformance, chaos, ...memory.map(bytes), refusal || 'ready']
  } catch (error) {
    return [name, source, '–', '–', '–', '–', firstLine(error)]
  }
}

function bytes(count: number | null): string {
  return count === null ? '–' : `${count.toLocaleString('en')} B`
}

function firstLine(error: unknown): string {
  return String(error).split('\n')[0]!
}
