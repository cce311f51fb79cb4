import { testProxy } from './outages.ts'
import { KINDS } from './proxies.ts'

testProxy('varnish', KINDS.varnish)
