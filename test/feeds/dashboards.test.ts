import fc from 'fast-check'
import t from 'tap'
import { comparePositions, parsePosition } from '../../src/event.ts'
import { build, type Answer } from '../support/app.ts'
import { canonical, expectStatus, follow, getJson, send, versionIn } from '../support/feeds.ts'
import { subscribe } from '../support/reader.ts'

t.setTimeout(400_000)

t.test('at every id, snapshot plus patches equals what GET returned', async t => {
  const server = await build(t)
  let runs = 0
  const holds = async (document: string, changes: readonly Change[]) => {
    const path = `/dashboards/run-${runs++}`
    const returned: { id: string; text: string }[] = []
    const change = async (how: string, json: string) => {
      await expectChanged(send(server, how, path, json))
      const answer = await expectStatus(200, getJson(server, path))
      returned.push({ id: versionIn(answer), text: answer.text })
    }
    await change('PUT', document)
    const readers = [await subscribe(t, server, path)]
    await readers[0]!.first('cursor')
    for (const { how, json, joins } of changes) {
      await change(how, json)
      if (joins) readers.push(await subscribe(t, server, path))
    }
    // one that has what GET gave at first, and goes on from there
    const late = await subscribe(t, server, `${path}?after=${returned[0]!.id}`)
    const last = returned.at(-1)!.id
    for (const reader of [...readers, late]) {
      await reader.frames.until(
        () => reader.frames.all.some(({ id = '' }) => isAt(id, last)),
        'the last version'
      )
      const first = reader === late ? [{ event: 'snapshot', data: returned[0]!.text }] : []
      const held = follow([...first, ...reader.frames.all])
      for (const [id, value] of held) {
        const { text } = returned.findLast(version => isAt(id, version.id))!
        if (value !== canonical(text)) throw new Error(`at ${id} a page holds ${value}, GET gave ${text}`)
      }
      const missing =
        reader === readers[0] || reader === late ? returned.slice(1).filter(({ id }) => !held.has(id)) : []
      if (missing.length > 0) throw new Error(`a page was not told of ${JSON.stringify(missing)}`)
      reader.close()
    }
  }
  const checked = fc.asyncProperty(objectText, fc.array(change, { minLength: 1, maxLength: 12 }), holds)
  await fc.assert(checked, { seed: 7396, numRuns: 60 })
  t.ok(runs >= 60)
})

interface Change {
  readonly how: 'PATCH' | 'PUT'
  readonly json: string
  /** Whether somebody comes after it. */
  readonly joins: boolean
}

// JSON as text: an object in JavaScript would not have a member __proto__
const leaf = fc.oneof(
  fc.constant('null'),
  fc.boolean().map(String),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map(value => JSON.stringify(value)),
  fc.string({ unit: 'binary', maxLength: 5 }).map(value => JSON.stringify(value)),
  fc.constantFrom('"\\n"', '"\\r\\n\\u2028"', '"<&>"')
)
const name = fc.constantFrom('a', 'b', 'c', '__proto__', 'constructor', 'toString', '', '0', 'ü', 'a\nb')
const { object: objectText } = fc.letrec<{ node: string; object: string }>(tie => ({
  node: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    leaf,
    tie('object'),
    fc.array(leaf, { maxLength: 3 }).map(list)
  ),
  object: fc
    .array(fc.tuple(name, tie('node')), { maxLength: 5 })
    .map(members => `{${members.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(',')}}`)
}))
const change: fc.Arbitrary<Change> = fc.record({
  how: fc.constantFrom('PATCH', 'PATCH', 'PATCH', 'PUT'),
  json: objectText,
  joins: fc.nat(5).map(number => number === 0)
})

function list(values: readonly string[]): string {
  return `[${values.join(',')}]`
}

async function expectChanged(answer: Promise<Answer>): Promise<void> {
  const { status, text } = await answer
  if (status >= 300) throw new Error(`not changed: ${status} ${text}`)
}

/** Whether a position lies at another one or after it. */
function isAt(id: string, other: string): boolean {
  const [a, b] = [parsePosition(id), parsePosition(other)]
  return a !== undefined && b !== undefined && comparePositions(a, b) >= 0
}
