import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { format } from 'prettier'
import t, { type Test } from 'tap'
import { readConstants } from '../bench/scale/constants.ts'
import { constantRows, planRows } from '../bench/scale/tables.ts'
import { Settings } from '../src/config.ts'
import { Metrics } from '../src/metrics.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** With `--snapshot` what is out of date is written anew. */
const WRITES = process.env['TAP_SNAPSHOT'] === '1'

const PAGES = [
  ...readdirSync(ROOT).filter(name => name.endsWith('.md')),
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.md'))
    .map(name => `docs/${name}`)
]

t.test('docs/configuration.md has every setting', async t => {
  const rows = Object.entries(Settings.properties).map(([name, schema]) => {
    // what is said of it is no part of the schema's type
    const { default: fallback, description, allowed } = schema as unknown as Described
    return [code(name), fallback === undefined || fallback === '' ? '' : code(fallback), description, allowed]
  })
  await isUpToDate(t, 'docs/configuration.md', 'settings', [
    ['Setting', 'Default', 'Meaning', 'Allowed'],
    ...rows
  ])
})

t.test('docs/operations.md has every metric', async t => {
  const { registry } = new Metrics('0.0.0')
  const rows = registry
    .getMetricsAsArray()
    .filter(({ name }) => name.startsWith('ringside_'))
    .map(metric => {
      // the type of the package leaves out what the value has
      const { name, type, labelNames, help } = metric as unknown as Measured
      return [code(name), type, labelNames.map(code).join(', '), help]
    })
  await isUpToDate(t, 'docs/operations.md', 'metrics', [['Metric', 'Kind', 'Labels', 'Meaning'], ...rows])
})

t.test('docs/operations.md has every alert', async t => {
  const rows = read('deploy/alerts.yml')
    .split(/^ +- alert: /m)
    .slice(1)
    .map(rule => {
      const [, name, expr] = /^(\w+)\n +expr: (?:>-\n)?([^]*?)\n {8}(?:for|labels):/.exec(rule)!
      const [, pause = ''] = /^ +for: (.+)$/m.exec(rule) ?? []
      const [, runbook] = /runbook: >-\n([^]*?)(?:\n\n|\n$)/.exec(rule)!
      const lasts = pause === '' ? '' : `, for ${pause}`
      return [code(name!), code(oneLine(expr!)) + lasts, oneLine(runbook!)]
    })
  await isUpToDate(t, 'docs/operations.md', 'alerts', [
    ['Alert', 'When', 'What it means, and what to do'],
    ...rows
  ])
})

t.test('docs/scale.md has what its model gives, from the figures of the measured tables', async t => {
  const constants = readConstants({
    performance: read('docs/performance.md'),
    stores: read('docs/stores.md')
  })
  await isUpToDate(t, 'docs/scale.md', 'constants', constantRows(constants))
  await isUpToDate(t, 'docs/scale.md', 'plan', planRows(constants))
})

t.test('docs/architecture.md names every file of the house, and no other', async t => {
  const [, tree] = /```\n(src\/\n[^]*?)```/.exec(read('docs/architecture.md'))!
  t.strictSame(pathsOf(tree!).sort(), filesIn('src').sort())
})

t.test('npm, the image and the command itself start Node with the same options', t => {
  const { start } = (JSON.parse(read('package.json')) as { scripts: { start: string } }).scripts
  const [, options] = /^node (--.+) dist\/cli\/ringside\.js serve$/.exec(start)!
  t.ok(read('src/cli/ringside.ts').startsWith(`#!/usr/bin/env -S node ${options}\n`))
  const [, command] = /^CMD (\[.+\])$/m.exec(read('Dockerfile'))!
  t.equal((JSON.parse(command!) as string[]).join(' '), start)
  t.match(read('docs/operations.md'), start)
  t.end()
})

t.test('every link inside the project leads somewhere', async t => {
  for (const page of PAGES) {
    for (const [, link] of read(page).matchAll(/\]\((?!https?:|mailto:)([^)\s]+)\)/g)) {
      const [file, anchor] = link!.split('#') as [string, string | undefined]
      const target = file === '' ? page : join(dirname(page), file)
      t.ok(existsSync(join(ROOT, target)), `${page}: ${link}`)
      if (anchor !== undefined) t.ok(anchorsOf(target).includes(anchor), `${page}: ${link}`)
    }
  }
})

interface Described {
  default?: string | number | boolean
  description: string
  allowed: string
}

interface Measured {
  name: string
  type: string
  labelNames: string[]
  help: string
}

function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8')
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim()
}

function code(text: string | number | boolean): string {
  return `\`${text}\``
}

/** Compares the table between `<!-- name -->` and `<!-- /name -->`. */
async function isUpToDate(t: Test, path: string, name: string, rows: readonly string[][]): Promise<void> {
  const page = read(path)
  const lines = rows.map(row => `| ${row.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`)
  lines.splice(1, 0, `|${' --- |'.repeat(rows[0]!.length)}`)
  const table = await format(lines.join('\n'), { parser: 'markdown' })
  const [start, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
  const [before, rest] = page.split(start) as [string, string | undefined]
  const [found, after] = (rest ?? '').split(end) as [string, string | undefined]
  if (WRITES) writeFileSync(join(ROOT, path), `${before}${start}\n\n${table}\n${end}${after}`)
  else
    t.equal(found.trim(), table.trim(), `out of date? npx tap --snapshot test/${basename(import.meta.url)}`)
}

/** The paths of a tree that is drawn by indentation, a name and its meaning a line. */
function pathsOf(tree: string): string[] {
  const folders: string[] = []
  return tree
    .trimEnd()
    .split('\n')
    .flatMap(line => {
      const depth = line.search(/\S/) / 2
      const [name] = line.trim().split(/\s/) as [string]
      folders.length = depth
      if (name.endsWith('/')) folders.push(name)
      return name.endsWith('/') ? [] : [folders.join('') + name]
    })
}

function filesIn(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap(entry =>
    entry.isDirectory() ? filesIn(`${folder}/${entry.name}`) : [`${folder}/${entry.name}`]
  )
}

/** The anchors of a page's headings, as they are made on GitHub. */
function anchorsOf(path: string): string[] {
  return [...read(path).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-')
  )
}
