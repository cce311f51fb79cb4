import t from 'tap'
import { Type } from 'typebox'
import { JsonInput } from '../src/input.ts'

const Tagged = Type.Object(
  { name: Type.String(), tags: Type.Optional(Type.Array(Type.String(), { maxItems: 1000 })) },
  { additionalProperties: false }
)

const read = (value: unknown) => new JsonInput(value).as(Tagged)

t.test('a value is looked at as far as it can be right', async t => {
  const right = { name: 'x', tags: Array.from({ length: 1000 }, String) }
  t.equal(read(right), right)
  let looks = 0
  /** A list that counts who looks at its items. */
  const counted = (item: unknown) =>
    new Proxy(new Array<unknown>(1_000_000).fill(item), {
      get(list, name, self): unknown {
        if (typeof name === 'string' && /^\d+$/.test(name)) looks++
        return Reflect.get(list, name, self)
      }
    })
  for (const item of ['', 1]) {
    looks = 0
    t.throws(() => read({ name: 'x', tags: counted(item) }), { statusCode: 400, message: /tags/ })
    t.ok(looks < 50_000, `${looks} looks`)
  }
  const members = Object.fromEntries(Array.from({ length: 200_000 }, (_, index) => [`m${index}`, 1]))
  t.throws(() => read({ name: 'x', ...members }), { statusCode: 400, message: /./ })
})
