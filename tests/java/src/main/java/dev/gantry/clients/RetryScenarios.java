package dev.gantry.clients;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What happens to a message whose consumer fails: it comes again, and in the end is laid aside. */
final class RetryScenarios {
    /** Delay level of the retries, one second, so that the scenarios take seconds. */
    private static final int LEVEL_ONE_SECOND = 1;

    private RetryScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("failed_message_comes_again_to_its_group", RetryScenarios::retry);
        all.put("message_that_keeps_failing_ends_in_the_dead_letter_queue", RetryScenarios::deadLetter);
    }

    private static MessageListenerConcurrently failing(Inbox attempts, int failuresMax) {
        return (messages, context) -> {
            context.setDelayLevelWhenNextConsume(LEVEL_ONE_SECOND);
            messages.forEach(attempts::add);
            return messages.get(0).getReconsumeTimes() < failuresMax
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER
                : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
    }

    private static DefaultMQPushConsumer failingConsumer(World world, String group, String topic, MessageListenerConcurrently listener)
        throws Exception {
        DefaultMQPushConsumer consumer = world.consumer(group);
        consumer.subscribe(topic, "*");
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.registerMessageListener(listener);
        return consumer;
    }

    private static List<Integer> reconsumeTimes(Inbox attempts) {
        List<Integer> times = new ArrayList<>();
        attempts.all().forEach(attempt -> times.add(attempt.message.getReconsumeTimes()));
        return times;
    }

    private static void retry(World world) throws Exception {
        String topic = world.topic(1);
        Inbox attempts = new Inbox();
        world.start(failingConsumer(world, world.name("failing"), topic, failing(attempts, 1)));
        World.send(world.producer(), World.message(topic, "TagA", "stubborn"));
        attempts.waitFor(2);
        Check.same(Arrays.asList("stubborn", "stubborn"), attempts.bodies(), "bodies of the attempts");
        Check.same(Arrays.asList(0, 1), reconsumeTimes(attempts), "number of the attempts");
        Check.same(topic, attempts.all().get(1).message.getTopic(), "topic of the second attempt");
        long pauseMs = attempts.all().get(1).atMs - attempts.all().get(0).atMs;
        Check.that(pauseMs >= 1_000, "level 1 is one second, the message came again after " + pauseMs + " ms");
    }

    private static void deadLetter(World world) throws Exception {
        String topic = world.topic(1);
        String group = world.name("hopeless");
        Inbox attempts = new Inbox();
        DefaultMQPushConsumer consumer = failingConsumer(world, group, topic, failing(attempts, Integer.MAX_VALUE));
        consumer.setMaxReconsumeTimes(1);
        world.start(consumer);
        World.send(world.producer(), World.message(topic, "TagA", "hopeless"));
        List<MessageExt> dead = waitForDeadLetters(world, group);
        Check.same(Arrays.asList(0, 1), reconsumeTimes(attempts), "attempts before it was laid aside");
        Check.same(1, dead.size(), "messages in the dead letter queue");
        Check.same("hopeless", Inbox.text(dead.get(0)), "body of the dead letter");
        Check.same(topic, dead.get(0).getProperty(MessageConst.PROPERTY_RETRY_TOPIC), "topic the dead letter names");
    }

    @SuppressWarnings("deprecation")
    private static List<MessageExt> waitForDeadLetters(World world, String group) throws Exception {
        DefaultMQPullConsumer reader = world.pullConsumer(world.name("undertakers"));
        List<MessageExt> dead = Collections.synchronizedList(new ArrayList<>());
        Check.until("the dead letter queue holds a message", () -> {
            for (MessageQueue queue : queuesOrNone(reader, "%DLQ%" + group)) {
                dead.addAll(PullScenarios.messages(reader, queue, "*"));
            }
            return !dead.isEmpty();
        }, () -> dead);
        return dead;
    }

    /** The topic comes into being with its first message; before that the client says it knows no route. */
    @SuppressWarnings("deprecation")
    private static Set<MessageQueue> queuesOrNone(DefaultMQPullConsumer reader, String topic) {
        try {
            return reader.fetchSubscribeMessageQueues(topic);
        } catch (MQClientException e) {
            return Collections.emptySet();
        }
    }
}
