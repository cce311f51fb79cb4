import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import ts from 'typescript'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const CONSUMER = `
import Fastify from 'fastify'
import plugin, { ringside } from 'ringside-hub'
import { subscribe } from 'ringside-hub/client'

const app = Fastify()
await app.register(ringside, { prefix: '/live', settings: { RING_SIZE: 5, RING_TTL: '1h' } })
await app.register(plugin, { prefix: '/two' })
await app.register(import('ringside-hub'), { prefix: '/three' })
export const id: string = await app.ringside.publish('a', { data: 1 })
export const isAny: 0 extends 1 & typeof ringside ? true : false = false
export { subscribe }
// @ts-expect-error a prefix is text
await app.register(ringside, { prefix: 5 })
// @ts-expect-error there is no such setting
await app.register(ringside, { settings: { RING_SIZ: 5 } })
`

const { Node16, NodeNext, Bundler } = ts.ModuleResolutionKind

t.test('a program that uses the package compiles, and a wrong one does not', async t => {
  const dir = t.testdir({ 'package.json': '{ "type": "module" }', 'use.ts': CONSUMER })
  mkdirSync(join(dir, 'node_modules'))
  symlinkSync(ROOT, join(dir, 'node_modules/ringside-hub'), 'dir')
  symlinkSync(join(ROOT, 'node_modules/fastify'), join(dir, 'node_modules/fastify'), 'dir')
  for (const [name, moduleResolution, module] of [
    ['node16', Node16, ts.ModuleKind.Node16],
    ['nodenext', NodeNext, ts.ModuleKind.NodeNext],
    ['bundler', Bundler, ts.ModuleKind.ESNext]
  ] as const) {
    const program = ts.createProgram([join(dir, 'use.ts')], {
      ...{ module, moduleResolution, target: ts.ScriptTarget.ES2022 },
      ...{ lib: ['lib.es2023.d.ts', 'lib.dom.d.ts'], strict: true, noEmit: true, skipLibCheck: false },
      ...{ types: ['node'], typeRoots: [join(ROOT, 'node_modules/@types')] }
    })
    // ours are checked; those of TypeScript, Node and others are read alone, which takes a tenth of the time
    const ours = program.getSourceFiles().filter(({ fileName }) => !fileName.includes('/node_modules/'))
    t.ok(
      ours.some(({ fileName }) => fileName.endsWith('/dist/app.d.ts')),
      `${name}: it is the built package`
    )
    const found = [
      ...program.getOptionsDiagnostics(),
      ...program.getGlobalDiagnostics(),
      ...ours.flatMap(file => [
        ...program.getSyntacticDiagnostics(file),
        ...program.getSemanticDiagnostics(file)
      ])
    ]
    const told = found.map(
      ({ file, messageText }) =>
        `${file?.fileName ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
    )
    t.strictSame(told, [], name)
  }
})
