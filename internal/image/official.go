package image

import (
	"strings"
	"sync"
)

// officialNames are names that the default registry offers as official
// images. In 0.1.x they work as they are, so no catalogue may take one and no
// prefix is put before one. The list need not be complete to be safe: a name
// missing here is only resolved differently if a catalogue has it or the person
// set a prefix.
var officialNames = sync.OnceValue(func() map[string]bool { return wordSet(officialWords) })

const officialWords = `
adminer aerospike almalinux alpine alt amazoncorretto amazonlinux api-firewall arangodb archlinux
backdrop bash bonita buildpack-deps busybox caddy cassandra centos chronograf cirros clearlinux
clefos clickhouse clojure composer consul convertigo couchbase couchdb crate dart debian docker
drupal eclipse-mosquitto eclipse-temurin eggdrop elasticsearch elixir emqx erlang fedora flink
fluentd friendica gazebo gcc geonetwork ghost golang gradle groovy haproxy haskell haxe
hello-world hitch httpd hylang ibm-semeru-runtimes ibmjava influxdb irssi jetty joomla
jruby julia kapacitor kibana kong krakend lightstreamer liquibase logstash mageia mariadb
matomo maven mediawiki memcached mongo mongo-express monica mono mysql nats nats-streaming
neo4j neurodebian nextcloud nginx node notary odoo open-liberty openjdk oraclelinux orientdb
percona perl phalcon photon php phpmyadmin plone postfixadmin postgres pypy python r-base
rabbitmq rakudo-star redis redmine registry rethinkdb rocket.chat rockylinux ros ruby rust
sapmachine satosa scratch silverpeas solr sonarqube spark spiped storm swift swipl
teamspeak telegraf thrift tomcat tomee traefik ubuntu unit varnish vault websphere-liberty
wordpress xwiki yourls znc zookeeper`

func wordSet(words string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}
