import t from 'tap'
import { mergePatch } from '../../src/feeds/merge-patch.ts'

t.test('the examples of RFC 7396, appendix A', async t => {
  const examples: [string, string, string][] = [
    ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
    ['{"a":"b"}', '{"a":null}', '{}'],
    ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
    ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
    ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
    ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
    ['["a","b"]', '["c","d"]', '["c","d"]'],
    ['{"a":"b"}', '["c"]', '["c"]'],
    ['{"a":"foo"}', 'null', 'null'],
    ['{"a":"foo"}', '"bar"', '"bar"'],
    ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
    ['[1,2]', '{"a":"b","c":null}', '{"a":"b"}'],
    ['{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}']
  ]
  for (const [target, patch, result] of examples)
    t.equal(apply(target, patch), result, `${target} and ${patch}`)
})

t.test('a member may have any name', async t => {
  t.equal(apply('{"__proto__":{"a":1}}', '{"__proto__":{"b":2}}'), '{"__proto__":{"a":1,"b":2}}')
  t.equal(apply('{"__proto__":1,"a":1}', '{"__proto__":null}'), '{"a":1}')
  t.equal(apply('{}', '{"constructor":{"prototype":{"x":1}}}'), '{"constructor":{"prototype":{"x":1}}}')
  t.equal(apply('{}', '{"toString":{"a":1}}'), '{"toString":{"a":1}}')
  t.notOk('x' in {}, 'and changes nothing else')
  t.notOk('b' in {})
})

t.test('numbers stay as they were written, where they are patched and where they are not', async t => {
  const [target, patch] = ['{"a":12345678901234567,"b":{"c":1.0,"d":1}}', '{"b":{"d":2.50},"e":[1e2,-0]}']
  t.equal(apply(target, patch), '{"a":12345678901234567,"b":{"c":1.0,"d":2.50},"e":[1e2,-0]}')
})

t.test('names and strings that look like JSON', async t => {
  t.equal(apply('{"a,\\"}":"{","b":[{}]}', '{"c:":"],","b":null}'), '{"a,\\"}":"{","c:":"],"}')
  t.equal(apply('{"a":1,"a":2}', '{"\\u0061":3}'), '{"a":3}')
})

function apply(target: string, patch: string): string {
  return mergePatch(target, patch)
}
