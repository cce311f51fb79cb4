import t from 'tap'

// A Node without what src/http/direct.ts asks of it: everything goes through the sockets' streams
Reflect.deleteProperty(process, 'binding')

const { direct } = await import('../../src/http/direct.ts')
t.equal(direct, null)
await import('../http/connection.test.ts')
await import('./slow-reader.test.ts')
