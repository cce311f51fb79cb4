import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, release, totalmem, type as osType } from 'node:os'
import { join } from 'node:path'

/** The server has a core to itself, and so has the load. */
export const SERVER_CORE = 0
export const LOAD_CORE = 1

/** Asked for by trying: how many cores there are says nothing to a process that is itself pinned to one. */
export const canPin = [SERVER_CORE, LOAD_CORE].every(
  core => spawnSync('taskset', ['-c', String(core), 'true']).status === 0
)

/** A command that stays on a core, where the system lets us say so. */
export function pinned(core: number, file: string, args: readonly string[]): [string, string[]] {
  return canPin ? ['taskset', ['-c', String(core), file, ...args]] : [file, [...args]]
}

/** What a program prints. Throws when it fails. */
export function output(file: string, args: readonly string[]): string {
  const { stdout, stderr, status } = spawnSync(file, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${file} ${args.join(' ')} failed:\n${stderr}`)
  return stdout.trim()
}

/** A program of the bench itself, by its path in it without an extension; as source or built, as this is. */
export function script(path: string): string {
  return join(import.meta.dirname, path + import.meta.filename.slice(-3))
}

/** Whether a program is on the PATH. */
export function hasProgram(name: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${name}`]).status === 0
}

/** Linux counts processor time in these. */
export const CLOCK_TICKS = 100

/** Seconds of processor time that this machine has spent on what is not this process, nor a child of it that has ended. */
export function othersSeconds(): number {
  // user nice system idle iowait irq softirq
  const [user, nice, system, , , irq, softirq] = numbersOf('/proc/stat', /^cpu +(.*)/)
  // of itself and of its children: user, system
  const mine = numbersOf('/proc/self/stat', /^.*\) (.*)/).slice(11, 15)
  const all = user! + nice! + system! + irq! + softirq!
  return (all - mine.reduce((sum, ticks) => sum + ticks, 0)) / CLOCK_TICKS
}

function numbersOf(file: string, line: RegExp): number[] {
  return line.exec(readFileSync(file, 'utf8'))![1]!.split(' ').map(Number)
}

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly node: string
  readonly descriptors: string
  readonly pinned: boolean
  readonly date: string
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: `${osType()} ${release()}`,
    node: process.version,
    descriptors: descriptorLimit(),
    pinned: canPin,
    date: new Date().toISOString().slice(0, 10)
  }
}

/** A process's hard limit of open files, which Node takes for its own when it starts. */
export function descriptorLimit(pid: number | 'self' = 'self'): string {
  return /^Max open files +\S+ +(\S+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1] ?? 'unknown'
}
