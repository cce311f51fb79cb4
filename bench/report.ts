import type { Machine } from './machine.ts'
import type { Outcome } from './measure.ts'
import { peers } from './peers.ts'
import type { Column, Figures, Scenario } from './scenario.ts'
import { scenarios } from './scenarios/index.ts'

export type Measurement = {
  readonly scenario: string
  readonly peer: string
  readonly run: number
  /** How much of a core was taken by what has nothing to do with it, in percent. */
  readonly others?: number
} & Outcome

/** From here on others are told of: what they take, or what they leave cold, is in the figures. */
const MANY_OTHERS = 5

/** What is written as JSON. */
export interface Report {
  readonly machine: Machine
  readonly quick: boolean
  /** What was set of Ringside for all scenarios. */
  readonly settings: Record<string, string>
  readonly measurements: readonly Measurement[]
}

/** The tables, for a terminal, or as Markdown. */
export function tables(report: Report, markdown: boolean): string {
  const { machine, quick } = report
  const head =
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB; ${machine.kernel}; Node ${machine.node}; ` +
    `${machine.descriptors} descriptors; ${machine.pinned ? 'server and load pinned to a core each' : 'not pinned'}; ` +
    `${machine.date}${quick ? '; QUICK: sizes too small to quote' : ''}`
  const parts = scenarios.map(scenario => tableOf(scenario, report, markdown)).filter(Boolean)
  return [head, ...parts].join('\n\n')
}

/** One scenario: a row for each peer; a cell has each run's figure, and the ratio of their means to the floor's. */
function tableOf(scenario: Scenario, { measurements, quick }: Report, markdown: boolean): string {
  const mine = measurements.filter(each => each.scenario === scenario.name)
  if (mine.length === 0) return ''
  const columns = scenario.columns.filter(({ key }) => mine.some(each => figure(each, key) !== undefined))
  const present = peers.filter(({ name }) => mine.some(({ peer }) => peer === name))
  const rows = present.map(({ name, label }) => [
    markdown ? label : label.replaceAll('*', ''),
    ...columns.map(column => cell(column, name, mine))
  ])
  const table = [['', ...columns.map(({ title }) => title)], ...rows]
  const remarks = mine.flatMap(each => {
    const name = `${each.peer}, run ${each.run}`
    if ('error' in each) return [`${name}: ${each.error}`]
    const { others = 0 } = each
    return others > MANY_OTHERS && !quick ? [`${name}: other processes took ${others} % of a core`] : []
  })
  const title = markdown ? `### ${scenario.name}\n\n${scenario.about}` : `== ${scenario.name}`
  return [title, (markdown ? asMarkdown : asText)(table), ...remarks].join('\n\n')
}

function cell(
  { key, digits = 0, floor, per }: Column,
  peer: string,
  measurements: readonly Measurement[]
): string {
  const of = (name: string, which: string) =>
    measurements.filter(each => each.peer === name).flatMap(each => figure(each, which) ?? [])
  const values = of(peer, key)
  if (values.length === 0) return '–'
  const shown = [...new Set(values.map(value => show(value, digits)))].join(' / ')
  const ratio = floor || per ? mean(values) / mean(of(floor ?? peer, per ?? key)) : NaN
  return Number.isFinite(ratio) ? `${shown} (${ratio.toFixed(2)}×)` : shown
}

function figure(measurement: Measurement, key: string): Figures[string] | undefined {
  return 'figures' in measurement ? measurement.figures[key] : undefined
}

function show(value: number | string, digits: number): string {
  if (typeof value === 'string') return value
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}

function mean(values: readonly (number | string)[]): number {
  return values.reduce<number>((sum, value) => sum + Number(value), 0) / values.length
}

function asMarkdown(table: readonly (readonly string[])[]): string {
  const [head = [], ...rows] = table
  const rule = head.map((_, column) => (column === 0 ? '---' : '---:'))
  return [head, rule, ...rows].map(row => `| ${row.join(' | ')} |`).join('\n')
}

function asText(table: readonly (readonly string[])[]): string {
  const widths = table[0]!.map((_, column) => Math.max(...table.map(row => row[column]!.length)))
  return table
    .map(row =>
      row
        .map((text, column) => (column === 0 ? text.padEnd(widths[0]!) : text.padStart(widths[column]!)))
        .join('   ')
    )
    .join('\n')
}
