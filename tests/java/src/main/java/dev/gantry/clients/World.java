package dev.gantry.clients;

import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Deque;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.stream.Collectors;

import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/**
 * What one scenario works with: names that no other scenario uses, and clients that are closed with it.
 * Each client is an instance of its own, as if it ran in its own process.
 */
final class World implements AutoCloseable {
    private static final int SEND_MILLIS_MAX = 20_000;
    /** Permission bits of a topic that may be read and written. */
    static final int READ_AND_WRITE = 6;

    final Server server;
    private final String suffix = UUID.randomUUID().toString().substring(0, 8);
    private final Deque<Runnable> closers = new ArrayDeque<>();
    private int instances;
    private int topics;

    World(Server server) {
        this.server = server;
    }

    /** Where the server listens and what it calls itself. */
    static final class Server {
        final String nameserver;
        final String broker;
        final String cluster;

        Server(String nameserver, String broker, String cluster) {
            this.nameserver = nameserver;
            this.broker = broker;
            this.cluster = cluster;
        }
    }

    /** Starts a client whose type is known at the call. */
    private interface Start {
        void run() throws Exception;
    }

    private <T> T started(T client, Start start, Runnable close) throws Exception {
        closers.push(close);
        start.run();
        return client;
    }

    private String instance() {
        instances++;
        return suffix + "-" + instances;
    }

    String name(String stem) {
        return stem + "-" + suffix;
    }

    /** Creates a topic by the admin API and returns its name. */
    String topic(int queues) throws Exception {
        topics++;
        String topic = name("topic") + "-" + topics;
        admin().createAndUpdateTopicConfig(server.broker, new TopicConfig(topic, queues, queues, READ_AND_WRITE));
        return topic;
    }

    DefaultMQAdminExt admin() throws Exception {
        DefaultMQAdminExt admin = new DefaultMQAdminExt(10_000);
        admin.setNamesrvAddr(server.nameserver);
        admin.setInstanceName(instance());
        return started(admin, admin::start, admin::shutdown);
    }

    DefaultMQProducer producer() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(name("producers"));
        producer.setNamesrvAddr(server.nameserver);
        // Not the default 3 s: a machine that runs several virtual machines at once may stall one of them for longer.
        producer.setSendMsgTimeout(SEND_MILLIS_MAX);
        producer.setInstanceName(instance());
        return started(producer, producer::start, producer::shutdown);
    }

    /** A push consumer that is not started yet: see {@link #start}. */
    DefaultMQPushConsumer consumer(String group) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(server.nameserver);
        consumer.setInstanceName(instance());
        return consumer;
    }

    void start(DefaultMQPushConsumer consumer) throws Exception {
        started(consumer, consumer::start, consumer::shutdown);
    }

    /** A started push consumer of one topic that acknowledges everything into {@code inbox}. */
    DefaultMQPushConsumer consumer(String group, String topic, Inbox inbox) throws Exception {
        DefaultMQPushConsumer consumer = consumer(group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(inbox);
        start(consumer);
        return consumer;
    }

    /** Deprecated by its makers, and still what many programs use. */
    @SuppressWarnings("deprecation")
    DefaultMQPullConsumer pullConsumer(String group) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(group);
        consumer.setNamesrvAddr(server.nameserver);
        consumer.setInstanceName(instance());
        return started(consumer, consumer::start, consumer::shutdown);
    }

    DefaultLitePullConsumer litePullConsumer(String group) throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        consumer.setNamesrvAddr(server.nameserver);
        consumer.setInstanceName(instance());
        return started(consumer, () -> { }, consumer::shutdown);
    }

    static Message message(String topic, String tag, String body) {
        return new Message(topic, tag, body.getBytes(StandardCharsets.UTF_8));
    }

    static SendResult send(DefaultMQProducer producer, Message message) throws Exception {
        return stored(producer.send(message));
    }

    static SendResult stored(SendResult result) {
        Check.same(SendStatus.SEND_OK, result.getSendStatus(), "send status");
        return result;
    }

    /** Sends {@code count} messages round the queues, one after the other, and returns their bodies. */
    static List<String> sendRoundQueues(DefaultMQProducer producer, String topic, String stem, int count) throws Exception {
        List<MessageQueue> queues = queues(producer, topic);
        List<String> bodies = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            String body = stem + "-" + i;
            stored(producer.send(message(topic, "TagA", body), queues.get(i % queues.size())));
            bodies.add(body);
        }
        return bodies;
    }

    /** Queues that may be written, by number. */
    static List<MessageQueue> queues(DefaultMQProducer producer, String topic) throws Exception {
        List<MessageQueue> queues = new ArrayList<>(producer.fetchPublishMessageQueues(topic));
        queues.sort(Comparator.comparingInt(MessageQueue::getQueueId));
        return queues;
    }

    /** The queues of {@code topic} that {@code consumer} holds. */
    static Set<MessageQueue> queuesHeld(DefaultMQPushConsumer consumer, String topic) {
        return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet()
            .stream().filter(queue -> queue.getTopic().equals(topic)).collect(Collectors.toSet());
    }

    /** The same of several consumers, in their order. */
    static List<Set<MessageQueue>> queuesHeld(List<DefaultMQPushConsumer> consumers, String topic) {
        return consumers.stream().map(consumer -> queuesHeld(consumer, topic)).collect(Collectors.toList());
    }

    @Override
    public void close() {
        closers.forEach(Runnable::run);
    }
}
