import { testProxy } from './outages.ts'
import { KINDS } from './proxies.ts'

testProxy('haproxy', KINDS.haproxy)
